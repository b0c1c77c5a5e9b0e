"""L-BFGS: SciPy's, on the engine's loss and gradient of all samples at once.

`Objective` is the loss as a function of one flat vector, `minimize` hands it to SciPy; both serve any front end.
`train` makes a training of it that looks like any other: an iteration is an epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.callbacks import Callback
from fastbp.engine.run import Run, divisors, scales
from fastbp.history import TrainingState
from fastbp.kernels.layers import COST, HITS, SCALE, STEP_COLUMNS
from fastbp.optimizers import LBFGS
from fastbp.session import Judge, Session, Validate

__all__ = ["Objective", "minimize", "scipy_optimize", "train"]

Vector = NDArray[np.float64]
Layers = tuple[list[NDArray[Any]], list[NDArray[Any]]]  # weights, biases


class Objective:
    """The mean cost of samples, with an L2 penalty, as a function of all weights and trained biases in one vector.

    Parameters
    ----------
    run : Run
        With `update=None` and a `batch_size` of all samples. It computes in its network's dtype, vectors are float64.
    samples : int64 array
        The rows of X that count.
    sample_weight : float64 array or None
        Of all rows of X, the same as the run's.
    penalty : float, default 0
        Of the term penalty/2 sum w^2 that is added to the mean; biases have none.

    Attributes
    ----------
    hits : float
        Samples classified rightly at the last evaluation.
    evaluations : int

    Raises
    ------
    FloatingPointError
        When called: the loss or its gradient is infinite or NaN.
    """

    def __init__(
        self,
        run: Run,
        samples: NDArray[np.int64],
        sample_weight: NDArray[np.float64] | None = None,
        *,
        penalty: float = 0.0,
    ) -> None:
        self.run, self.penalty = run, penalty
        self.hits, self.evaluations = 0.0, 0
        self._order = samples
        self._starts, self._steps = np.array([0, len(samples)]), np.zeros((1, STEP_COLUMNS))
        self._steps[:, SCALE] = scales(divisors(samples, self._starts, sample_weight))
        self._weights, self._biases = run.canonical()
        self._trained = run.architecture.bias is True
        self._n_weights = sum(w.size for w in self._weights)

    def pack(self, weights: Sequence[NDArray[Any]], biases: Sequence[NDArray[Any]]) -> Vector:
        """Return weights, layer by layer, and trained biases in one vector."""
        return np.concatenate([array.ravel() for array in (*weights, *(biases if self._trained else ()))], dtype=float)

    def unpack(self, x: Vector) -> Layers:
        """Return new weights and biases from a vector, in the network's dtype; untrained biases as they were."""
        shapes = [array.shape for array in (*self._weights, *(self._biases if self._trained else ()))]
        parts = np.split(x, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
        with np.errstate(over="ignore"):  # the loss will tell
            arrays = [
                part.reshape(shape).astype(self._weights[0].dtype) for part, shape in zip(parts, shapes, strict=True)
            ]
        n_layers = len(self._weights)
        return arrays[:n_layers], arrays[n_layers:] if self._trained else self._biases

    def start(self) -> Vector:
        """Return the vector of the run's weights."""
        return self.pack(*self.run.canonical())

    def load(self, x: Vector) -> None:
        """Give the run the weights of a vector."""
        self.run.load(*self.unpack(x))

    def __call__(self, x: Vector) -> tuple[float, Vector]:
        """Return loss and gradient, from one pass over the samples."""
        run = self.run
        self.load(x)
        report = run.minibatches(self._order, self._starts, self._steps)
        loss = float(report[0, COST] * self._steps[0, SCALE])
        gradient = self.pack(*run.state()[0])
        w = x[: self._n_weights]
        loss += self.penalty / 2 * float(w @ w)
        gradient[: self._n_weights] += self.penalty * w
        self.hits = float(report[0, HITS] * self._steps[0, SCALE]) * len(self._order)
        self.evaluations += 1
        if not (math.isfinite(loss) and np.isfinite(gradient).all()):
            raise FloatingPointError(
                f"the loss became {loss} and the largest partial derivative {np.abs(gradient).max()} at evaluation "
                f"{self.evaluations} of L-BFGS. Usual causes: inputs or targets that are not scaled to about 1, an "
                "unbounded output with a steep loss, weights that start too large. Scale X, and fit again"
            )
        return loss, gradient


def minimize(
    objective: Callable[[Vector], tuple[float, Vector]],
    start: Vector,
    *,
    after: Callable[[Vector], object] | None = None,
    **options: Any,
) -> Any:
    """Minimize by SciPy's L-BFGS-B.

    Its search multiplies vectors as long as the network has parameters, which BLAS gives to threads of its own; after
    each product these wait in a loop for the next, on the cores that the objective needs. Meanwhile BLAS is therefore
    held to one thread, where threadpoolctl is installed (scikit-learn brings it).

    Parameters
    ----------
    objective : callable
        x -> loss, gradient.
    start : float64 array
    after : callable, optional
        Called with x after each iteration; what it raises ends the search, and is raised.
    **options
        SciPy's: maxiter, maxfun, gtol, ftol, maxcor, ...

    Returns
    -------
    scipy.optimize.OptimizeResult
        x, fun, nit, nfev, status, message.

    Raises
    ------
    ImportError
        SciPy is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> result = minimize(lambda x: (float(x @ x), 2 * x), np.array([3.0, -4.0]), gtol=1e-8)
    >>> bool(result.fun < 1e-12)
    True
    """
    optimize = scipy_optimize()  # with its BLAS, which can be held only when it is loaded
    gradient: Vector | None = None

    # SciPy wants the gradient where it has just asked for the loss; with jac=True it would keep a copy of that place
    def loss(x: Vector) -> float:
        nonlocal gradient
        value, gradient = objective(x)
        return value

    def derivative(x: Vector) -> Vector:
        nonlocal gradient
        found, gradient = gradient, None
        return objective(x)[1] if found is None else found

    with _blas_on_one_thread():
        return optimize.minimize(loss, start, method="L-BFGS-B", jac=derivative, callback=after, options=options)


def _blas_on_one_thread() -> AbstractContextManager[object]:
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    limits: AbstractContextManager[object] = threadpool_limits(limits=1, user_api="blas")
    return limits


def scipy_optimize() -> Any:
    """Return `scipy.optimize`. Raises ImportError."""
    try:
        from scipy import optimize
    except ImportError as error:
        raise ImportError(
            "L-BFGS needs SciPy, which is not installed: python -m pip install 'fastbp[sklearn]', or scipy itself"
        ) from error
    return optimize


class _Stop(Exception):
    """Somebody set the state's `stop`."""


def train(
    objective: Objective,
    optimizer: LBFGS,
    state: TrainingState,
    *,
    classify: bool,
    callbacks: Sequence[Callback] = (),
    publish: Callable[[], None] | None = None,
    validate: Validate | None = None,
    judge: Judge | None = None,
) -> None:
    """Train by L-BFGS from the run's weights on; however it ends, the run has those of the last complete iteration.

    Parameters
    ----------
    objective : Objective
    optimizer : LBFGS
    state : TrainingState
        Its history is filled, one entry an iteration: the loss reached, with the penalty. `stop` and `keep` work as
        ever.
    classify : bool
        Whether accuracy means anything.
    callbacks, publish, validate, judge
        As for `Session`.

    Raises
    ------
    ImportError
        SciPy is not installed.
    FloatingPointError
        The loss or its gradient became infinite or NaN.
    """
    history, n = state.history, state.n_samples
    reached = objective.start()
    evaluated, loss = reached, math.nan
    begun = time.perf_counter()

    def evaluate(x: Vector) -> tuple[float, Vector]:
        nonlocal evaluated, loss
        loss, gradient = objective(x)
        evaluated = x.copy()
        return loss, gradient

    def end_iteration(x: Vector) -> None:
        nonlocal reached, begun
        if not np.array_equal(x, evaluated):  # the line search went back
            evaluate(x)
        reached = evaluated
        accuracy = objective.hits / n if classify else None
        state.loss, state.accuracy = loss, accuracy
        history.loss.append(loss)
        if accuracy is not None:
            history.accuracy.append(accuracy)
        history.seconds.append(time.perf_counter() - begun)
        session.progress()
        session.end_epoch()
        if state.stop:
            raise _Stop
        begun = time.perf_counter()

    with Session(objective.run, state, callbacks, publish, validate, judge) as session:
        try:
            result = minimize(
                evaluate, reached, after=end_iteration, maxiter=optimizer.max_iterations,
                maxfun=optimizer.max_evaluations, gtol=optimizer.tolerance, maxcor=optimizer.memory,
            )  # fmt: skip
            history.message = str(result.message)
        except _Stop:
            history.message = "STOP: a callback ended the training"
        finally:
            objective.load(reached)
