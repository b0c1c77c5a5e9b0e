"""Network: what a user defines, trains and asks."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastbp.architecture import Architecture, Bias
from fastbp.arguments import generator, integer, one_each, one_of, pair, threads
from fastbp.callbacks import Callback
from fastbp.engine.evaluation import Evaluator
from fastbp.engine.run import Run, divisors, scales
from fastbp.engine.sparse import SparseRows
from fastbp.fitting import exclusively, fit
from fastbp.history import History
from fastbp.initializers import INITIALIZERS
from fastbp.inputs import check_trusted, source
from fastbp.kernels.layers import SCALE, STEP_COLUMNS
from fastbp.measures import accuracy, measure
from fastbp.optimizers import LBFGS, Optimizer, OptimizerState
from fastbp.published import Published
from fastbp.targets import Targets, sample_weights, targets

__all__ = ["Network"]

Floats = NDArray[Any]
Seed = int | np.random.Generator | np.random.SeedSequence | None


class Network:
    """A fully connected network, trained by backpropagation.

    Parameters
    ----------
    sizes : sequence of int
        Neurons of each layer: inputs, hidden layers, outputs, such as [784, 30, 10].
    hidden : str or sequence of str, default "sigmoid"
        Activation of the hidden layers, one for all or one each: "identity", "sigmoid", "tanh", "relu".
    output : str, default "sigmoid"
        Activation of the outputs: one of those, "exp" or "softmax".
    loss : str or None, default None
        "quadratic" (1/2 sum_j (a_j - y_j)^2), "mse" (mean_j (a_j - y_j)^2), "cross_entropy" (with softmax: of the
        classes; with sigmoid: of each output, summed) or "poisson" (sum_j y_j log(y_j / a_j) - y_j + a_j, with exp
        only, and exp with nothing else). None takes "cross_entropy" with softmax and sigmoid, "poisson" with exp,
        otherwise "quadratic". The cost is the mean over the samples.
    init : str or sequence of (weights, biases), default "scaled_gaussian"
        How weights start: a name from `fastbp.initializers.INITIALIZERS`, or the arrays of each layer, (n_out, n_in)
        and (n_out,).
    bias : True, False or "fixed", default True
        Trained, none, or kept as set.
    dtype : "float32" or "float64", default "float32"
    seed : int, numpy.random.Generator, SeedSequence or None, default None
        For the start and the order of samples. Same seed, data and arguments: the same bits, whatever `n_threads` is.

    Raises
    ------
    ValueError, TypeError
        An argument outside its domain, or of the wrong type.

    References
    ----------
    M. Nielsen, *Neural Networks and Deep Learning* (2015), chapter 2: equations BP1 to BP4.

    Examples
    --------
    >>> import numpy as np
    >>> import fastbp
    >>> X, y = fastbp.datasets.load_digits()
    >>> network = fastbp.Network([64, 30, 10], hidden="relu", output="softmax", seed=0)
    >>> history = network.fit(X[:1500], y[:1500], epochs=20, verbose=False)
    >>> bool(network.accuracy(X[1500:], y[1500:]) > 0.85)
    True
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        hidden: str | Sequence[str] = "sigmoid",
        output: str = "sigmoid",
        loss: str | None = None,
        init: str | Sequence[tuple[ArrayLike, ArrayLike]] = "scaled_gaussian",
        bias: Bias = True,
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        self._architecture = Architecture.of(sizes, hidden=hidden, output=output, loss=loss, bias=bias, dtype=dtype)
        self._evaluator = Evaluator(self._architecture)
        self._rng = generator(seed)
        self._optimizer: OptimizerState | None = None
        self._publish(*self._initial(init))

    # What it is

    @property
    def sizes(self) -> tuple[int, ...]:
        """Neurons of each layer, from the inputs to the outputs."""
        return self._architecture.sizes

    @property
    def architecture(self) -> Architecture:
        """Sizes, activations, loss, bias and dtype."""
        return self._architecture

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return self._architecture.dtype

    @property
    def weights(self) -> tuple[Floats, ...]:
        """Weights of each layer, shape (n_out, n_in): w[j, k] leads from neuron k to neuron j.

        The arrays are read-only; assign a sequence of arrays to change them, or use `set_layer`. The optimizer then
        starts anew.
        """
        return self._published.weights

    @weights.setter
    def weights(self, weights: Sequence[ArrayLike]) -> None:
        given = self._one_a_layer(weights, "weights")
        checked = [self._layer_weights(l, w, f"weights[{l}]") for l, w in enumerate(given)]
        exclusively(self, lambda: self._publish(checked, self._published.biases))

    @property
    def biases(self) -> tuple[Floats, ...]:
        """Biases of each layer, shape (n_out,); zeros where the network has none. Read-only, like `weights`."""
        return self._published.biases

    @biases.setter
    def biases(self, biases: Sequence[ArrayLike]) -> None:
        given = self._one_a_layer(biases, "biases")
        checked = [self._layer_biases(l, b, f"biases[{l}]") for l, b in enumerate(given)]
        exclusively(self, lambda: self._publish(self._published.weights, checked))

    def set_layer(self, l: int, weights: ArrayLike | None = None, biases: ArrayLike | None = None) -> None:
        """Replace the weights or biases of one layer by copies of what is given.

        Parameters
        ----------
        l : int
            Weight layer, from 0 (above the inputs) to the outputs; negative ones count from the end.
        weights : array_like (n_out, n_in), optional
        biases : array_like (n_out,), optional

        Raises
        ------
        ValueError, TypeError, IndexError
            Wrong shape, values that are not finite, biases in a network without, no such layer.
        RuntimeError
            The network is in training.

        Examples
        --------
        >>> import fastbp
        >>> network = fastbp.Network([2, 1], seed=0)
        >>> network.set_layer(0, [[1.0, -1.0]], [0.5])
        >>> network.weights[0]
        array([[ 1., -1.]], dtype=float32)
        """
        n = len(self.weights)
        if weights is None and biases is None:
            raise TypeError("set_layer needs weights, biases or both")
        l = integer(l, "l")
        if not -n <= l < n:
            raise IndexError(f"l is {l}, but this network has the weight layers 0 to {n - 1}")
        l %= n
        w = None if weights is None else self._layer_weights(l, weights, "weights")
        b = None if biases is None else self._layer_biases(l, biases, "biases")

        def replace() -> None:
            all_w, all_b = list(self._published.weights), list(self._published.biases)
            if w is not None:
                all_w[l] = w
            if b is not None:
                all_b[l] = b
            self._publish(all_w, all_b)

        exclusively(self, replace)

    def summary(self) -> str:
        """Return a table of the layers.

        Examples
        --------
        >>> import fastbp
        >>> print(fastbp.Network([784, 30, 10]).summary())
        layer  inputs  neurons  activation  parameters
            0     784       30     sigmoid      23,550
            1      30       10     sigmoid         310
        loss cross_entropy, biases trained, float32, 23,860 parameters
        """
        a = self._architecture
        lines = ["layer  inputs  neurons  activation  parameters"]
        for l, (n_in, n_out) in enumerate(zip(a.sizes, a.sizes[1:], strict=False)):
            n = n_in * n_out + (n_out if a.bias is not False else 0)
            lines.append(f"{l:5}  {n_in:6}  {n_out:7}  {a.activations[l]:>10}  {n:10,}")
        bias = {True: "biases trained", False: "no biases", "fixed": "biases fixed"}[a.bias]
        lines.append(f"loss {a.loss}, {bias}, {a.dtype}, {a.n_parameters:,} parameters")
        return "\n".join(lines)

    def __repr__(self) -> str:
        a = self._architecture
        return (
            f"Network({list(a.sizes)}, hidden={list(a.activations[:-1])}, output={a.output!r}, loss={a.loss!r}, "
            f"bias={a.bias!r}, dtype={a.dtype.name!r})"
        )

    # Training

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        optimizer: str | Optimizer | LBFGS = "adam",
        sample_weight: ArrayLike | None = None,
        l2: float = 0.0,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
        validation_fraction: float | None = None,
        shuffle: bool = True,
        callbacks: Sequence[Callback] = (),
        verbose: bool | None = None,
        n_threads: int | None = None,
    ) -> History:
        """Train from the present weights on (a warm start, on a network in use); the optimizer starts anew.

        Parameters
        ----------
        X : array_like or sparse matrix (n, n_in)
            Finite samples, one a row. Read in place where it is C-contiguous and of the network's dtype, otherwise
            converted once. A sparse matrix or array of SciPy is read as CSR, and never made dense. X must not be
            changed meanwhile.
        y : array_like (n,) or (n, n_out)
            With several outputs: class labels 0 to n_out - 1 as integers, or one row of targets a sample. With one
            output: the targets (0 to 1 with cross_entropy, at least 0 with poisson).
        epochs : int, default 1
        batch_size : int, default 32
            Samples in a mini-batch; the last of an epoch may be shorter. More than n means n.
        optimizer : "adam", "sgd", "lbfgs", `Adam`, `SGD` or `LBFGS`
            The learning rate of Adam and SGD may be one of `fastbp.schedules`. L-BFGS takes all samples at once and
            counts its own iterations: `batch_size` and `shuffle` mean nothing to it, `epochs` must stay 1.
        sample_weight : array_like (n,), optional
            As how many samples each counts in the mean of its mini-batch: finite, at least 0, not all 0. A mini-batch
            whose weights are all 0 changes nothing.
        l2 : float, default 0
            Penalty of large weights: the cost is the mean over the mini-batch + l2/2 times the sum of all squared
            weights (not of biases). The book's lambda / n.
        validation_data : (X, y), optional
            Measured at the end of each epoch.
        validation_fraction : float, optional
            Between 0 and 1: hold this share of the samples out (rounded up), instead, and measure them. Which ones is
            drawn from the network's generator before the training, whatever `shuffle` is.
        shuffle : bool, default True
            Draw a new order of the samples for each epoch, unless it is a single mini-batch.
        callbacks : sequence of Callback
        verbose : bool, optional
            Show a progress bar; None shows one on a terminal and in notebooks.
        n_threads : int, optional
            Threads that compute; None takes as many as the work repays, as does more than there are cores. The result
            does not depend on it.

        Returns
        -------
        History

        Raises
        ------
        ValueError, TypeError
            Wrong input; the network is as before.
        FloatingPointError
            The loss or a weight became infinite or NaN; the network, and the state of its optimizer, are as the last
            complete epoch before left them.
        MemoryError
            The network has the weights after the last mini-batch that was completed or, where there is no memory for
            them either, those that others saw last.
        RuntimeError
            The network is in training already.
        ImportError
            L-BFGS without SciPy, which the extra `fastbp[sklearn]` brings.

        Examples
        --------
        >>> import numpy as np
        >>> import fastbp
        >>> X = np.linspace(-1, 1, 200)[:, None]
        >>> network = fastbp.Network([1, 16, 1], hidden="tanh", output="identity", seed=0)
        >>> history = network.fit(X, X[:, 0] ** 2, epochs=200, verbose=False)
        >>> history.loss[-1] < 1e-3
        True
        """
        return fit(
            self, X, y, epochs, batch_size, optimizer, validation_data, shuffle, callbacks, verbose, n_threads,
            validation_fraction, resume=False, sample_weight=sample_weight, l2=l2,
        )  # fmt: skip

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        batch_size: int = 32,
        optimizer: str | Optimizer = "adam",
        sample_weight: ArrayLike | None = None,
        l2: float = 0.0,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
        shuffle: bool = True,
        n_threads: int | None = None,
    ) -> History:
        """Train for one pass more over the samples; the optimizer and its schedule go on where they were.

        k calls do exactly what a `fit` with `epochs=k` does on a network whose optimizer is fresh, draws included.
        Parameters and errors are those of `fit`. The optimizer starts anew after weights were assigned, or where its
        update rule differs from the one before; the learning rate may, and a schedule knows the epochs before.

        Examples
        --------
        >>> import numpy as np
        >>> import fastbp
        >>> X, y = np.eye(4), np.arange(4)
        >>> network = fastbp.Network([4, 4], output="softmax", seed=0)
        >>> losses = [network.partial_fit(X, y, batch_size=4).loss[0] for _ in range(3)]
        >>> losses[0] > losses[1] > losses[2]
        True
        """
        return fit(
            self, X, y, 1, batch_size, optimizer, validation_data, shuffle, (), False, n_threads, None, resume=True,
            sample_weight=sample_weight, l2=l2,
        )  # fmt: skip

    # Asking

    def predict(self, X: ArrayLike, *, n_threads: int | None = None) -> Floats:
        """Return the activations of the outputs.

        Parameters
        ----------
        X : array_like (n, n_in)
        n_threads : int, optional

        Returns
        -------
        array (n, n_out) of the network's dtype

        Raises
        ------
        ValueError, TypeError
            X does not fit.

        Examples
        --------
        >>> import fastbp
        >>> fastbp.Network([3, 2], seed=0).predict([[0.0, 0.5, 1.0]]).shape
        (1, 2)
        """
        if n_threads is None or (type(n_threads) is int and n_threads > 0):
            outputs = self._published.outputs_of_few(X)
            if outputs is not None:
                return outputs
        return self._forward(self._rows(X), [len(self.weights) - 1], n_threads)[0]

    def predict_classes(self, X: ArrayLike, *, n_threads: int | None = None) -> NDArray[np.int64]:
        """Return the class of each sample: the output with the largest activation, the first of equals.

        With one output, 1 where it is at least 1/2, else 0.

        Returns
        -------
        int64 array (n,)

        Examples
        --------
        >>> import fastbp
        >>> network = fastbp.Network([1, 2], output="softmax", init=[([[-1.0], [1.0]], [0.0, 0.0])])
        >>> network.predict_classes([[-3.0], [3.0]])
        array([0, 1])
        """
        a = self.predict(X, n_threads=n_threads)
        if a.shape[1] == 1:
            return (a[:, 0] >= 0.5).astype(np.int64)
        classes: NDArray[np.int64] = a.argmax(axis=1).astype(np.int64, copy=False)
        return classes

    def activations(self, X: ArrayLike, *, n_threads: int | None = None) -> list[Floats]:
        """Return the activations of every weight layer, from the first hidden one to the outputs.

        Returns
        -------
        list of arrays (n, n_out of the layer)

        Examples
        --------
        >>> import fastbp
        >>> [a.shape for a in fastbp.Network([3, 5, 2], seed=0).activations([[0.0, 0.5, 1.0]])]
        [(1, 5), (1, 2)]
        """
        return self._forward(self._rows(X), list(range(len(self.weights))), n_threads)

    def loss(
        self, X: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, n_threads: int | None = None
    ) -> float:
        """Return the mean cost of samples, weighted with `sample_weight`; X, y and the weights as in `fit`.

        Examples
        --------
        >>> import fastbp
        >>> network = fastbp.Network([1, 1], output="identity", init=[([[2.0]], [0.0])])
        >>> network.loss([[1.0], [2.0]], [1.0, 4.0])
        0.25
        """
        samples = self._rows(X)
        wanted = self._targets(y, len(samples))
        weight = sample_weights(sample_weight, len(samples))
        published = self._published
        return measure(published.evaluator, published.packed(), samples, wanted, threads(n_threads), weight)[0]

    def accuracy(
        self, X: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, n_threads: int | None = None
    ) -> float:
        """Return the share of samples whose class is right, or of their weight; X, y and the weights as in `fit`.

        The class of a row of targets is its largest, that of a single target is whether it is at least 1/2.

        Examples
        --------
        >>> import fastbp
        >>> network = fastbp.Network([1, 1], init=[([[2.0]], [0.0])])
        >>> network.accuracy([[1.0], [-1.0], [2.0], [3.0]], [1, 0, 1, 0])
        0.75
        """
        samples = self._rows(X)
        wanted = self._targets(y, len(samples))
        weight = sample_weights(sample_weight, len(samples))
        published = self._published
        return accuracy(published.evaluator, published.packed(), samples, wanted, threads(n_threads), weight)

    def gradients(
        self, X: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, n_threads: int | None = None
    ) -> tuple[list[Floats], list[Floats]]:
        """Return the gradient of `loss`: dC/dw (BP4) and dC/db (BP3) of each layer.

        Returns
        -------
        weights : list of arrays (n_out, n_in)
        biases : list of arrays (n_out,)
            Zeros where the network has no biases.

        Examples
        --------
        >>> import fastbp
        >>> network = fastbp.Network([1, 1], output="identity", init=[([[2.0]], [0.0])])
        >>> network.gradients([[1.0], [2.0]], [1.0, 4.0])
        ([array([[0.5]], dtype=float32)], [array([0.5], dtype=float32)])
        """
        samples = self._rows(X)
        wanted = self._targets(y, len(samples))
        weight = sample_weights(sample_weight, len(samples))
        published = self._published
        n = len(samples)
        run = Run(
            self._architecture, published.weights, published.biases, samples, wanted.array,
            batch_size=n, update=None, n_threads=threads(n_threads), sample_weight=weight,
        )  # fmt: skip
        order, starts, steps = np.arange(n), np.array([0, n]), np.zeros((1, STEP_COLUMNS))
        steps[:, SCALE] = scales(divisors(order, starts, weight))
        run.minibatches(order, starts, steps)
        weights, biases = run.state()[0]
        with np.errstate(all="ignore"):  # a sum may overflow where no term does: X is looked at in vain then
            if not all(math.isfinite(array.sum()) for array in (*weights, *biases)):
                check_trusted(samples)
        return weights, biases

    # Parts

    def _rows(self, X: ArrayLike) -> Floats | SparseRows:
        return source(X, self.sizes[0], self.dtype, trusted=True)

    def _targets(self, y: ArrayLike, n: int) -> Targets:
        a = self._architecture
        return targets(y, n, a.n_out, a.dtype, a.loss, a.output)

    def _forward(self, samples: Floats | SparseRows, layers: list[int], n_threads: int | None) -> list[Floats]:
        arrays = [np.empty((len(samples), self.sizes[l + 1]), self.dtype) for l in layers]
        published = self._published
        published.evaluator.evaluate(
            published.packed(), samples, wanted=dict(zip(layers, arrays, strict=True)), n_threads=threads(n_threads),
            doubt=lambda: check_trusted(samples),
        )  # fmt: skip
        return arrays

    def _publish(self, weights: Sequence[Floats], biases: Sequence[Floats]) -> None:
        self._published = Published(self._evaluator, weights, biases)
        self._optimizer = None

    def _initial(self, init: Any) -> tuple[list[Floats], list[Floats]]:
        a = self._architecture
        n_layers = len(a.sizes) - 1
        if isinstance(init, str):
            initializer = INITIALIZERS[one_of(init, "init", INITIALIZERS)]
            drawn = [initializer(self._rng, a.sizes[l], a.sizes[l + 1]) for l in range(n_layers)]
            weights = [w.astype(a.dtype) for w, _ in drawn]
            biases = [b.astype(a.dtype) if a.bias is not False else np.zeros(len(b), a.dtype) for _, b in drawn]
            return weights, biases
        given = one_each(init, n_layers, "init", "a name or a pair (weights, biases) a layer")
        weights, biases = [], []
        for l, layer in enumerate(given):
            w, b = pair(layer, f"init[{l}]", "(weights, biases)")
            weights.append(self._layer_weights(l, w, f"init[{l}][0]"))
            biases.append(self._layer_biases(l, b, f"init[{l}][1]"))
        return weights, biases

    def _one_a_layer(self, given: Any, name: str) -> list[Any]:
        return one_each(given, len(self.sizes) - 1, name, "one array a layer")

    def _layer_weights(self, l: int, given: Any, name: str) -> Floats:
        n_in, n_out = self.sizes[l : l + 2]
        return self._layer_array(given, (n_out, n_in), name)

    def _layer_biases(self, l: int, given: Any, name: str) -> Floats:
        if given is None and self._architecture.bias is False:
            return np.zeros(self.sizes[l + 1], self.dtype)
        b = self._layer_array(given, (self.sizes[l + 1],), name)
        if self._architecture.bias is False and b.any():
            raise ValueError(f"{name} has values other than 0, but this network was made with bias=False")
        return b

    def _layer_array(self, given: Any, shape: tuple[int, ...], name: str) -> Floats:
        if np.ma.is_masked(given):
            raise ValueError(f"{name} has masked entries, but must hold a number in each place: use its filled(...)")
        try:
            array = np.asarray(given)
        except ValueError:
            raise ValueError(f"{name} is ragged, but this layer needs an array of shape {shape}") from None
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{name} has dtype {array.dtype}, but must hold real numbers")
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, but this layer needs {shape}: (n_out, n_in) or (n_out,)")
        with np.errstate(over="ignore"):
            copied = np.array(array, dtype=self.dtype, order="C")
        if not np.isfinite(copied).all():
            raise ValueError(f"{name} has values that are not finite in {self.dtype}")
        return copied

    # Copies

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_evaluator"]
        published = state.pop("_published")
        return state | {"_arrays": (published.weights, published.biases)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        weights, biases = state.pop("_arrays")
        self.__dict__.update(state)
        self._rng = copy.deepcopy(self._rng)  # copy.copy too makes networks that do not draw from each other
        copies = [np.array(w) for w in weights], [np.array(b) for b in biases]
        self._evaluator = Evaluator(self._architecture)
        self._published = Published(self._evaluator, *copies)
