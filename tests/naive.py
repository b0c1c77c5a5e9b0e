"""The oracle of the kernels: backpropagation in float64 NumPy that carries, beside every value, a bound of its error.

A computed number is the exact one plus a rounding error, and how large that can be at most follows from the operations
that were made: nothing here is tuned. `Bounded` is a value with such a bound; its operators hold the error analysis of
one operation each (N. Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed. 2002, chapters 2 and 3). With u
the unit roundoff and gamma_n = n u / (1 - n u):

    one operation   fl(x o y) = (x o y)(1 + d), |d| <= u; where it underflows, it becomes 0: an absolute error of `tiny`
    n in a chain    a sum of n products, in whatever order, fused or not, differs by at most gamma_n sum |x_k||y_k| from
                    the sum of the same numbers, plus what is wrong with the numbers: sum |x_k| e_yk + |y_k| e_xk + ...
    a function      |f^(x^) - f(x)| <= |f(x^) - f(x)| + |f^(x^) - f(x^)|: how steep f is between x - e and x + e, times
                    e, plus its own error, stated in units in the last place (one of these is at most 2 u |f|)

The values themselves are computed in float64, whose own error enters the bounds only multiplied by u once more.

`KERNEL[dtype]` is the arithmetic of the compiled engine, `REFERENCE` that of NumPy in float64: two computations of the
same number differ by at most the sum of their bounds (`tolerance`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from elementwise import stated_ulps
from numpy.typing import ArrayLike, NDArray

from fastbp.kernels.layers import BLOCK, SLAB

Array: TypeAlias = NDArray[np.float64]
WIDE_U = 2.0**-53


@dataclass(frozen=True)
class Arithmetic:
    """What rounds, and by how much."""

    u: float  # unit roundoff
    tiny: float  # the smallest normal number: smaller results become 0
    largest: float
    ulps: Mapping[str, float]  # of exp, log, log1p, tanh
    block: int  # samples in one chain of a gradient
    slab: int  # samples after which a sum is rounded to the dtype
    wide_biases: bool = True  # whether the gradient of biases is summed in float64, but for that

    def gamma(self, n: float) -> float:
        """Bound the relative error of n roundings in a row."""
        return n * self.u / (1 - n * self.u)

    def given(self, x: ArrayLike) -> Bounded:
        """Take numbers that are known exactly; those below the normal range count as 0."""
        value = np.asarray(x, np.float64)
        return Bounded(value, np.where(np.abs(value) < self.tiny, np.abs(value), 0.0), self)

    def rounded(self, x: ArrayLike) -> Bounded:
        """Take float64 numbers that are rounded to the dtype once: hyper-parameters."""
        value = np.asarray(x, np.float64)
        return Bounded(value, np.zeros_like(value), self).round()

    def chain_over_samples(self, m: int) -> int:
        """Roundings that a term of a sum over m samples passes through: its block, and the sum of the blocks.

        With samples in the lanes they are fewer: m / 16 in a lane, 4 where lanes are added.
        """
        return min(m, self.block) + -(-m // self.block)


_FLOAT32, _FLOAT64 = np.finfo(np.float32), np.finfo(np.float64)
_ULPS = stated_ulps()
KERNEL = {
    name: Arithmetic(
        float(info.eps) / 2,
        float(info.tiny),
        float(info.max),
        {function: bound for (function, dtype), bound in _ULPS.items() if dtype == name},
        BLOCK,
        SLAB,
    )
    for name, info in (("float32", _FLOAT32), ("float64", _FLOAT64))
}
# NumPy promises no bound; its float64 functions, and those of every libm that it falls back on, keep 4 ulp
REFERENCE = Arithmetic(
    WIDE_U, float(_FLOAT64.tiny), float(_FLOAT64.max), dict.fromkeys(("exp", "log", "log1p", "tanh"), 4.0), 10**9, 10**9
)


@dataclass(frozen=True)
class Bounded:
    """Numbers, and how far what was computed in `f` can be from them at most."""

    value: Array
    error: Array
    f: Arithmetic

    @property
    def size(self) -> Array:
        """The largest absolute value that what was computed can have."""
        return np.abs(self.value) + self.error

    def widened(self, error: ArrayLike) -> Bounded:
        """The same numbers with so much more error."""
        return Bounded(self.value, self.error + error, self.f)

    def round(self, n: int = 1) -> Bounded:
        """n roundings more: gamma_n of the largest computed number, tiny if it underflows, anything if it overflows."""
        more = self.f.gamma(n) * self.size + n * self.f.tiny
        return self.widened(np.where(self.size * (1 + self.f.u) <= self.f.largest, more, np.inf))

    def _other(self, x: Bounded | ArrayLike) -> Bounded:
        return x if isinstance(x, Bounded) else self.f.given(x)

    def __add__(self, x: Bounded | ArrayLike) -> Bounded:
        y = self._other(x)
        return Bounded(self.value + y.value, self.error + y.error, self.f).round()

    def __sub__(self, x: Bounded | ArrayLike) -> Bounded:
        y = self._other(x)
        return Bounded(self.value - y.value, self.error + y.error, self.f).round()

    def __mul__(self, x: Bounded | ArrayLike) -> Bounded:
        """|x^y^ - xy| <= |x| e_y + |y| e_x + e_x e_y, and a rounding."""
        y = self._other(x)
        error = np.abs(self.value) * y.error + np.abs(y.value) * self.error + self.error * y.error
        return Bounded(self.value * y.value, error, self.f).round()

    def __truediv__(self, x: Bounded | ArrayLike) -> Bounded:
        """Divide by numbers that cannot be 0."""
        y = self._other(x)
        return self.over(y, np.abs(y.value) - y.error)

    def over(self, y: Bounded, least: Array) -> Bounded:
        """|x^/y^ - x/y| = |(x^ - x) + x/y (y - y^)| / |y^| <= (e_x + |x/y| e_y) / least, and a rounding.

        |y^| >= least.
        """
        value = self.value / y.value
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(least > 0, (self.error + np.abs(value) * y.error) / least, np.inf)
        return Bounded(value, error, self.f).round()

    def sqrt(self) -> Bounded:
        """|sqrt(x^) - sqrt(x)| <= sqrt(x) - sqrt(x - e) = e / (sqrt(x) + sqrt(x - e)), concave; and a rounding.

        With e > x, x^ lies between 0 and x + e, sqrt(x^) within sqrt(x + e) of sqrt(x).
        """
        low, high = np.sqrt(np.maximum(self.value - self.error, 0)), np.sqrt(self.value + self.error)
        root = np.sqrt(self.value)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(low > 0, self.error / (root + low), high)
        return Bounded(root, error, self.f).round()

    @property
    def T(self) -> Bounded:
        """Transposed."""
        return Bounded(self.value.T, self.error.T, self.f)


def chain(x: Bounded, y: Bounded, start: Bounded | None = None, roundings: int | None = None) -> Bounded:
    """start + x @ y, with `roundings` (the length of the sum unless said) in the chain of each element.

    error <= |x| e_y + e_x |y| + e_x e_y + gamma_n (|x| + e_x)(|y| + e_y), products of matrices; likewise for start.
    """
    f, n = x.f, x.value.shape[-1]
    roundings = (n if roundings is None else roundings) + 1
    value = x.value @ y.value
    # (|x| + e_x)(|y| + e_y) - |x||y|, without the cancellation
    error = x.error @ y.size + np.abs(x.value) @ y.error + f.gamma(roundings) * (x.size @ y.size) + roundings * f.tiny
    size = x.size @ y.size
    if start is not None:
        value = value + start.value
        error = error + start.error + f.gamma(roundings) * start.size
        size = size + start.size
    return Bounded(value, np.where(size * (1 + f.gamma(roundings)) < f.largest, error, np.inf), f)


# Functions


def _by_slope(z: Bounded, value: Array, slope: Array, relative: float) -> Bounded:
    """f(z) where |f'| <= slope on [z - e, z + e], and f itself is computed with a relative error."""
    reached = np.where(z.error > 0, slope * z.error, 0.0)
    return Bounded(value, reached + relative * (np.abs(value) + reached) + z.f.tiny, z.f)


def _nearest_zero(z: Bounded) -> Array:
    """The smallest |x| on [z - e, z + e]: where sigma' of sigmoid and tanh is largest."""
    return np.maximum(np.abs(z.value) - z.error, 0)


def identity(z: Bounded) -> tuple[Bounded, Bounded]:
    """a = z, sigma' = 1."""
    return z, z.f.given(np.ones_like(z.value))


def sigmoid(z: Bounded) -> tuple[Bounded, Bounded]:
    """a = 1 / (1 + exp(-z)), sigma' = a (1 - a).

    exp errs by 2 U u relative, of which t / (1 + t) <= 1 reaches 1 + t; the sum and the quotient round: 2 U + 2, and
    one more for the products of these.
    """
    t = np.exp(-np.abs(z.value))
    value = np.where(z.value >= 0, 1 / (1 + t), t / (1 + t))
    steepest = 1 / (2 + 2 * np.cosh(np.minimum(_nearest_zero(z), 700)))
    a = _by_slope(z, value, steepest, z.f.gamma(2 * z.f.ulps["exp"] + 3))
    a = Bounded(a.value, np.minimum(a.error, 1.0), a.f)  # both lie between 0 and 1
    return a, _times_rest(a, t / (1 + t) ** 2, 1 - 2 * a.value)


def _times_rest(a: Bounded, value: Array, slope: Array) -> Bounded:
    """sigma' as a quadratic polynomial of a, with the derivative `slope` and the second derivative -2.

    |p(a^) - p(a)| <= e (|p'(a)| + e); 1 - a (or 1 - a^2) and the product round: at most 2 u, of a number that is at
    most 1 in the difference from 1, so absolute.
    """
    error = a.error * (np.abs(slope) + a.error) + a.f.gamma(2) * np.minimum(a.size, 1) + a.f.tiny
    return Bounded(value, error, a.f)


def tanh(z: Bounded) -> tuple[Bounded, Bounded]:
    """a = tanh z with 2 U u relative error, sigma' = 1 - a^2."""
    value = np.tanh(z.value)
    steepest = 1 / np.cosh(np.minimum(_nearest_zero(z), 350)) ** 2
    a = _by_slope(z, value, steepest, z.f.gamma(2 * z.f.ulps["tanh"]))
    a = Bounded(a.value, np.minimum(a.error, 2.0), a.f)
    prime = _times_rest(a, 1 / np.cosh(np.minimum(np.abs(z.value), 350)) ** 2, 2 * a.value)
    return a, prime.widened(a.f.u)  # 1 - a^2 itself, which is near 1 where a is small


def relu(z: Bounded) -> tuple[Bounded, Bounded]:
    """a = max(z, 0), sigma' = 1 where z > 0, unknown where the error of z reaches over 0."""
    error = np.where(z.value + z.error > 0, z.error, 0.0)
    unknown = (np.abs(z.value) <= z.error).astype(np.float64)
    return Bounded(np.maximum(z.value, 0), error, z.f), Bounded((z.value > 0).astype(np.float64), unknown, z.f)


def exp(z: Bounded) -> tuple[Bounded, Bounded]:
    """a = exp z with 2 U u relative error, sigma' = a."""
    with np.errstate(over="ignore"):
        a = _by_slope(z, np.exp(z.value), np.exp(z.value + z.error), z.f.gamma(2 * z.f.ulps["exp"]))
    return a, a


ACTIVATIONS = {"identity": identity, "sigmoid": sigmoid, "tanh": tanh, "relu": relu, "exp": exp}


def _exponentials(z: Bounded) -> tuple[Array, Array, Array, Array, Array]:
    """What softmax is made of: s_j = z_j - max z; p_j; log p_j; bounds of |log p| from z, and of each exponential.

    Moving every z_k by at most e_k moves log p_j = z_j - logsumexp(z) by at most e_j + max e. The largest computed z is
    taken off exactly once: s^_j errs by u |s_j|, relative in exp(s_j); exp adds 2 U u.
    """
    f = z.f
    s = z.value - z.value.max(axis=-1, keepdims=True)
    log_total = np.log(np.exp(s).sum(axis=-1, keepdims=True))
    e_max = z.error.max(axis=-1, keepdims=True)
    moved = z.error + e_max
    each = np.expm1(np.minimum(f.u * (np.abs(s) + moved), 700)) + f.gamma(2 * f.ulps["exp"] + 1)
    return s, np.exp(s - log_total), s - log_total, moved, each


def softmax(z: Bounded) -> tuple[Bounded, Bounded]:
    """a_j = exp(s_j) / sum_k exp(s_k), and log a_j = s_j - log sum_k exp(s_k).

    The sum (in float64, then rounded) errs relatively by the mean of its terms' errors, weighted with p, by its own
    additions, by terms that underflow, and by u; the quotient rounds. log adds its own error of 2 U u relative.
    """
    f, n = z.f, z.value.shape[-1]
    s, p, log_p, moved, each = _exponentials(z)
    grown = np.exp(np.minimum(moved, 700))
    weighted = np.minimum((p * grown * each).sum(axis=-1, keepdims=True), each.max(axis=-1, keepdims=True))
    total = weighted + n * (WIDE_U + f.tiny) + f.gamma(2)
    relative = np.minimum(grown * (1 + each) * (1 + total) / np.maximum(1 - total, 1e-9) * (1 + f.gamma(2)) - 1, 1e300)
    a = Bounded(p, np.minimum(p * relative, 1 + f.gamma(10)) + f.tiny, f)
    size_log_total = np.abs(s - log_p) + moved
    in_log_total = -np.log1p(-np.minimum(total, 0.5)) + f.gamma(2 * f.ulps["log"]) * size_log_total
    log_a = Bounded(log_p, moved + f.u * (np.abs(s) + moved) + in_log_total, f).round()
    return a, log_a


# Losses: (C of each sample, delta)


def _summed(terms: Bounded) -> Bounded:
    """The sum over the outputs, in float64."""
    n = terms.value.shape[-1]
    more = n * WIDE_U * terms.size.sum(axis=-1)
    return Bounded(terms.value.sum(axis=-1), terms.error.sum(axis=-1) + more, terms.f)


def _quadratic(difference: Bounded, prime: Bounded) -> tuple[Bounded, Bounded]:
    """C_x = 1/2 sum_j (a_j - y_j)^2, delta = (a - y) sigma'."""
    return _summed(difference * difference * 0.5), difference * prime


def _mse(difference: Bounded, prime: Bounded) -> tuple[Bounded, Bounded]:
    """C_x = mean_j (a_j - y_j)^2, delta = 2/n (a - y) sigma'."""
    scaled = difference / float(difference.value.shape[-1])
    return _summed(difference * scaled), scaled * 2.0 * prime


def _categorical(log_a: Bounded, y: Bounded) -> Bounded:
    """C_x = -sum_j y_j log a_j."""
    return _summed(log_a * y * -1.0)


def _binary(z: Bounded, a: Bounded, y: Bounded) -> Bounded:
    """C_x = sum_j softplus(z_j) - y_j z_j.

    Its slope is a_j - y_j, on [z - e, z + e] at most |a - y| + min(e, 1), as |da/dz| <= 1/4 and a is between 0 and 1.
    In softplus(z) = max(z, 0) + log1p(t) with t = exp(-|z|), an error of t by 2 U u relative is at most as much in
    log1p(t), which adds its own 2 U u; the sum rounds. Then y z and the difference round.
    """
    f = z.f
    t = np.exp(-np.abs(z.value))
    softplus = np.maximum(z.value, 0) + np.log1p(t)
    value = softplus - y.value * z.value
    steepest = np.abs(a.value - y.value) + np.minimum(z.error, 1)
    size = softplus + z.error
    own = f.gamma(2 * f.ulps["exp"] + 2 * f.ulps["log1p"] + 2) * np.log1p(np.exp(-_nearest_zero(z))) + f.u * size
    terms = Bounded(value, steepest * z.error + own + f.u * y.size * z.size + 3 * f.tiny, f)
    return _summed(terms.round())


def _poisson(z: Bounded, a: Bounded, y: Bounded) -> Bounded:
    """C_x = sum_j y_j (log y_j - z_j) - y_j + a_j, where log errs by 2 U u relative, and 0 log 0 = 0."""
    f = z.f
    value = np.log(np.where(y.value > 0, y.value, 1.0))
    log_y = Bounded(value, f.gamma(2 * f.ulps["log"]) * np.abs(value) + f.tiny, f)
    return _summed(y * (log_y - z) - y + a)


# Networks

Values: TypeAlias = Sequence[Bounded]


@dataclass(frozen=True)
class Pass:
    """All that one mini-batch gives."""

    cost: Bounded  # the mean of C_x
    costs: Bounded  # C_x of each sample
    activations: list[Bounded]
    dw: list[Bounded]
    db: list[Bounded]


def parameters(f: Arithmetic, arrays: Sequence[ArrayLike]) -> list[Bounded]:
    """Return weights or biases as they are given."""
    return [f.given(array) for array in arrays]


def forward_backward(
    weights: Values,
    biases: Values,
    activations: Sequence[str],
    loss: str,
    X: ArrayLike,
    Y: ArrayLike,
    sample_weight: Array | None = None,
) -> Pass:
    """Compute one mini-batch as the kernels do, with bounds. Y has one row of targets a sample.

    A sample's weight multiplies its delta, rounded to the dtype, and its cost in float64.
    """
    f = weights[0].f
    x, y = f.given(X), f.given(Y)
    m, n_layers = len(x.value), len(weights)
    a, primes = [x], []
    z = x
    for l, (w, b) in enumerate(zip(weights, biases, strict=True)):
        z = chain(a[-1], w.T, b)  # z_j = b_j + sum_k w_jk a_k: n_in + 1 terms
        if activations[l] == "softmax":
            out, prime = softmax(z)
        else:
            out, prime = ACTIVATIONS[activations[l]](z)
        a.append(out)
        primes.append(prime)

    difference = a[-1] - y
    if loss == "cross_entropy":
        delta = difference
        costs = _categorical(primes[-1], y) if activations[-1] == "softmax" else _binary(z, a[-1], y)
    elif loss == "poisson":
        delta, costs = difference, _poisson(z, a[-1], y)
    else:
        costs, delta = (_quadratic if loss == "quadratic" else _mse)(difference, primes[-1])

    divisor = float(m)
    if sample_weight is not None:
        divisor = float(np.sum(sample_weight))
        delta = delta * f.rounded(sample_weight[:, None])
        costs = Bounded(costs.value * sample_weight, costs.error * sample_weight, f)
        costs = costs.widened(WIDE_U * costs.size)
    # in float64 a divisor that is itself a sum may be m u off, and its reciprocal rounds
    scale = f.rounded(1 / divisor).widened(m * WIDE_U / divisor * (sample_weight is not None))
    dw: list[Bounded] = []
    db: list[Bounded] = []
    over_samples = f.chain_over_samples(m)
    for l in range(n_layers - 1, -1, -1):
        dw.append(chain(delta.T, a[l], roundings=over_samples) * scale)  # BP4
        db.append(_over_samples(delta) * scale)  # BP3
        if l > 0:
            delta = chain(delta, weights[l]) * primes[l - 1]  # BP2
    total = costs.error.sum() + m * WIDE_U * costs.size.sum()
    cost = Bounded(costs.value.sum() / divisor, total / divisor, f)
    more = WIDE_U * (1 if sample_weight is None else m + 1)
    return Pass(cost.widened(more * cost.size), costs, a[1:], dw[::-1], db[::-1])


def _over_samples(delta: Bounded) -> Bounded:
    """sum_i delta_ij: in float64, and rounded to the dtype after each slab; of narrow networks in the dtype."""
    f, m = delta.f, len(delta.value)
    relative = WIDE_U * f.chain_over_samples(m) * 1.01 + f.gamma(-(-m // f.slab))
    if not f.wide_biases:
        relative = f.gamma(f.chain_over_samples(m))
    return Bounded(delta.value.sum(axis=0), delta.error.sum(axis=0) + relative * delta.size.sum(axis=0) + f.tiny, f)


# Training


def _step_sgd(w: Bounded, g: Bounded, state: list[Bounded], h: Mapping[str, Bounded]) -> tuple[Bounded, list[Bounded]]:
    """w - eta g."""
    return w - g * h["eta"], state


def _step_momentum(
    w: Bounded, g: Bounded, state: list[Bounded], h: Mapping[str, Bounded]
) -> tuple[Bounded, list[Bounded]]:
    """v = mu v - eta g, w + v."""
    v = state[0] * h["mu"] - g * h["eta"]
    return w + v, [v]


def _step_nesterov(
    w: Bounded, g: Bounded, state: list[Bounded], h: Mapping[str, Bounded]
) -> tuple[Bounded, list[Bounded]]:
    """v = mu v - eta g, w + mu v - eta g."""
    v = state[0] * h["mu"] - g * h["eta"]
    return w - g * h["eta"] + v * h["mu"], [v]


def _step_adam(w: Bounded, g: Bounded, state: list[Bounded], h: Mapping[str, Bounded]) -> tuple[Bounded, list[Bounded]]:
    """m = beta_1 m + (1 - beta_1) g, v = beta_2 v + (1 - beta_2) g^2, w - eta_t m / (sqrt(v) + epsilon_t).

    sqrt(v^) is at least 0, so the divisor at least epsilon_t, however small v may be beside its error. The reference
    divides by the bias corrections one by one, which rounds a few times more: `round`.
    """
    m = state[0] * h["beta_1"] + g * h["1 - beta_1"]
    v = state[1] * h["beta_2"] + g * g * h["1 - beta_2"]
    root, epsilon = v.sqrt(), h["epsilon"]
    least = np.maximum(root.value - root.error, 0) + epsilon.value - epsilon.error
    step = (m * h["eta"]).over(root + epsilon, least * (1 - w.f.u))
    return w - step.round(6), [m, v]


STEPS = {
    "sgd": (_step_sgd, 0),
    "momentum": (_step_momentum, 1),
    "nesterov": (_step_nesterov, 1),
    "adam": (_step_adam, 2),
}


def _hyper(f: Arithmetic, update: str, hyper: Mapping[str, float], t: int) -> dict[str, Bounded]:
    """The numbers of step t: computed in float64 from the hyper-parameters, then rounded to the dtype."""

    def exactly(x: float) -> Bounded:
        return REFERENCE.given(x)

    def narrowed(x: Bounded) -> Bounded:
        return Bounded(x.value, x.error, f).round()

    eta = exactly(hyper["learning_rate"])
    if update != "adam":
        return {"eta": narrowed(eta), "mu": narrowed(exactly(hyper.get("momentum", 0.0)))}
    beta_1, beta_2, one = exactly(hyper["beta_1"]), exactly(hyper["beta_2"]), exactly(1.0)
    power_1 = exactly(hyper["beta_1"] ** t).round(2)  # pow keeps 1 ulp, which is 2 u
    power_2 = exactly(hyper["beta_2"] ** t).round(2)
    correction = (one - power_2).sqrt()
    return {
        "eta": narrowed(eta * correction / (one - power_1)),
        "epsilon": narrowed(exactly(hyper["epsilon"]) * correction),
        "beta_1": narrowed(beta_1),
        "beta_2": narrowed(beta_2),
        "1 - beta_1": narrowed(one - beta_1),
        "1 - beta_2": narrowed(one - beta_2),
    }


def train(
    f: Arithmetic,
    weights: Sequence[ArrayLike],
    biases: Sequence[ArrayLike],
    activations: Sequence[str],
    loss: str,
    X: Array,
    Y: Array,
    *,
    update: str,
    hyper: Mapping[str, float],
    batches: Sequence[Any],
    train_bias: bool = True,
    sample_weight: Array | None = None,
    l2: float = 0.0,
) -> tuple[list[Bounded], list[Bounded]]:
    """Train as `fastbp.reference.train` does, and carry the bounds from step to step.

    The weights of a step have the error of those before; what that does to z, a, delta and the gradient is bounded by
    the same rules as any other error. So the bounds grow from step to step about as fast as errors can.
    """
    step, slots = STEPS[update]
    w, b = parameters(f, weights), parameters(f, biases)
    zeros = [[f.given(np.zeros_like(p.value))] * slots for p in (*w, *b)]
    for t, batch in enumerate(batches, 1):
        weight = None if sample_weight is None else sample_weight[batch]
        if weight is not None and not weight.any():
            continue
        result = forward_backward(w, b, activations, loss, X[batch], Y[batch], weight)
        dw = [g + p * f.rounded(l2) for g, p in zip(result.dw, w, strict=True)] if l2 else result.dw
        h = _hyper(f, update, hyper, t)
        updated = [step(p, g, s, h) for p, g, s in zip((*w, *b), (*dw, *result.db), zeros, strict=True)]
        zeros = [s for _, s in updated]
        w = [p for p, _ in updated[: len(w)]]
        if train_bias:
            b = [p for p, _ in updated[len(w) :]]
    return w, b


# Comparison


def tolerance(kernel: Bounded, reference: Bounded) -> Array:
    """Bound the difference of two computations of the same number; a hundredth more, for the bounds are rounded too."""
    return 1.01 * (kernel.error + reference.error)


def share_of_bound(got: ArrayLike, expected: ArrayLike, allowed: ArrayLike) -> float:
    """Return max |got - expected| / allowed, which must be at most 1; a NaN counts as infinite."""
    difference = np.abs(np.asarray(got, np.float64) - np.asarray(expected, np.float64))
    allowed = np.broadcast_to(allowed, difference.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(difference == 0, 0.0, difference / allowed)
    return float(np.where(np.isnan(difference), math.inf, share).max(initial=0))
