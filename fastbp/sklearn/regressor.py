"""MLPRegressor: scikit-learn's perceptron for real targets."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import column_or_1d, validate_data

from fastbp.sklearn.perceptron import Perceptron, Problem, is_stochastic

__all__ = ["MLPRegressor"]

Floats = NDArray[Any]


class MLPRegressor(RegressorMixin, Perceptron):
    """Multilayer perceptron for real targets, trained by backpropagation; drop-in for scikit-learn's.

    Parameters
    ----------
    loss : {'squared_error', 'poisson'}, default='squared_error'
        Half the squared error, summed over the outputs, or half the Poisson deviance; its outputs are exponentials, and
        y must not be negative.
    hidden_layer_sizes : int or array-like of int, default=(100,)
        Neurons of each hidden layer; () makes a linear model.
    activation : {'identity', 'logistic', 'tanh', 'relu'}, default='relu'
        Of the hidden layers.
    solver : {'lbfgs', 'sgd', 'adam'}, default='adam'
        L-BFGS (SciPy's, over all samples at once), stochastic gradient descent or Adam.
    alpha : float, default=0.0001
        Strength of the L2 penalty alpha/2 sum w^2, which is divided by the number of samples of a mini-batch (or the
        sum of their weights), as in scikit-learn: its strength depends on batch_size.
    batch_size : int or 'auto', default='auto'
        Samples of a mini-batch; 'auto' is min(200, n_samples).
    learning_rate : {'constant', 'invscaling', 'adaptive'}, default='constant'
        Schedule of 'sgd'. 'invscaling' is learning_rate_init / (t_ + 1)^power_t after t_ samples, changed at the end of
        an epoch; 'adaptive' divides by 5 where training would stop for want of improvement.
    learning_rate_init : float, default=0.001
        For 'sgd' and 'adam'.
    power_t : float, default=0.5
        For 'invscaling'.
    max_iter : int, default=200
        Epochs at most, or iterations of L-BFGS.
    shuffle : bool, default=True
        Draw a new order of the samples for each epoch.
    random_state : int, RandomState instance or None, default=None
        Draws the weights, the samples held out and their order. An int starts anew at each call, so that every
        `partial_fit` with an int draws the same permutation of the samples, as in scikit-learn.
    tol : float, default=1e-4
        Training stops where loss or validation score do not improve by tol for n_iter_no_change epochs; with 'lbfgs'
        where no component of the gradient is larger.
    verbose : bool or int, default=False
        Print each epoch's loss.
    warm_start : bool, default=False
        Let `fit` go on from the weights of the fit before; the optimizer starts anew.
    momentum : float, default=0.9
        For 'sgd', from 0 to 1.
    nesterovs_momentum : bool, default=True
        For 'sgd'.
    early_stopping : bool, default=False
        Hold out samples, stop where their score does not improve, and keep the weights of the best.
    validation_fraction : float, default=0.1
        Share of the samples held out for that.
    beta_1, beta_2 : float, default=0.9 and 0.999
        Decay of Adam's moments.
    epsilon : float, default=1e-8
        For 'adam'; added to the root of the second moment before its bias is corrected, as in scikit-learn.
    n_iter_no_change : int or inf, default=10
        Epochs without improvement that are borne.
    max_fun : int, default=15000
        Evaluations of the loss at most, for 'lbfgs'.

    Attributes
    ----------
    coefs_ : list of ndarray of shape (n_in, n_out)
        Weights of each layer; what is written into them counts from the next call on.
    intercepts_ : list of ndarray of shape (n_out,)
        Biases of each layer, likewise.
    loss_ : float
        Loss of the last epoch, penalty included.
    loss_curve_ : list of float
        Loss of each epoch, over warm starts and partial fits too; not with 'lbfgs'.
    best_loss_ : float or None
        Smallest of them; None with early_stopping.
    validation_scores_ : list of float or None
        R^2 of the samples held out, after each epoch; None without early_stopping.
    best_validation_score_ : float or None
        Largest of them.
    n_iter_ : int
        Epochs or iterations of the last call.
    t_ : int
        Samples seen in all; 0 with 'lbfgs'.
    n_layers_, n_outputs_ : int
    out_activation_ : str
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X had names of columns.

    See Also
    --------
    MLPClassifier : The same for classes.

    Notes
    -----
    With the same `random_state` the weights are those that scikit-learn 1.9 computes, up to rounding. These of its
    faults are mended:

    - with `warm_start` and `early_stopping`, a later fit keeps the validation split of the first, and does not write
      into the weights that are kept as best;
    - a warm start counts the epochs without improvement anew, where scikit-learn's stops after one epoch;
    - weights that did not stay finite, or any other error, leave an earlier fit as it was;
    - a mini-batch whose samples all weigh nothing changes nothing, where scikit-learn's is an error;
    - the squared error of several outputs is their sum, whose gradient scikit-learn computes too, but reports and
      compares divided by their number (`loss_`, `tol`, and what L-BFGS minimises);
    - `partial_fit` is absent with `solver='lbfgs'`;
    - y has the dtype of X, so that float32 samples are trained on in float32.

    The number of threads adapts to the work, the machine and what joblib leaves; `fastbp.set_num_threads` limits it.
    The numbers do not depend on it.

    `fit` reads samples where they lie, in any order, with these exceptions: X whose columns are contiguous is copied to
    rows where samples are shuffled (in order of columns each epoch would take longer than the copy), and of a sparse X
    what does not lie as SciPy's CSR, in order, with int32 for the columns.

    Examples
    --------
    >>> import numpy as np
    >>> from fastbp.sklearn import MLPRegressor
    >>> X = np.linspace(-1, 1, 200).reshape(-1, 1)
    >>> regressor = MLPRegressor(hidden_layer_sizes=20, solver="lbfgs", random_state=0).fit(X, X[:, 0] ** 2)
    >>> regressor.score(X, X[:, 0] ** 2) > 0.99
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **Perceptron._parameter_constraints,
        "loss": [StrOptions({"squared_error", "poisson"})],
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
    ) -> None:
        super().__init__(
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            loss=loss,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
        )

    @available_if(is_stochastic)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> MLPRegressor:
        """Train for one epoch over the samples; the optimizer goes on where it was.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None
            As how many samples each counts.

        Returns
        -------
        self : MLPRegressor

        Raises
        ------
        ValueError
            Bad input or parameters; an earlier fit is then as it was.
        """
        with self._as_before_on_error():
            self._fit(X, y, sample_weight, incremental=True)
        return self

    def predict(self, X: ArrayLike) -> Floats:
        """Return the network's outputs.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        self._check_is_fitted()
        outputs = self._outputs(X)
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    def _validated(self, X: Any, y: Any, *, incremental: bool, reset: bool) -> Problem:
        X, y = validate_data(
            self, X, y, accept_sparse=["csr", "csc"], multi_output=True, y_numeric=True,
            dtype=(np.float64, np.float32), reset=reset,
        )  # fmt: skip
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if sparse.issparse(y):
            y = y.toarray()
        if y.ndim == 1:
            y = y.reshape(-1, 1)
        return Problem(X, y, y.shape[1])

    def _natural_output(self) -> str:
        return "exp" if self.loss == "poisson" else "identity"

    def _strata(self, y: NDArray[Any]) -> None:
        return None

    def _score_outputs(self, outputs: Floats, y: NDArray[Any], sample_weight: Any) -> float:
        if not np.isfinite(outputs).all():
            return float("nan")
        return float(r2_score(y, outputs, sample_weight=sample_weight))
