"""exp, log, log1p and tanh of SIMD vectors, as polynomials and rational functions.

Stated bounds, in units in the last place of the result, over every finite argument whose result is normal
(subnormal arguments count as 0 and subnormal results become 0, a NaN stays a NaN):

    float32  exp 1.02, log 1, log1p 3, tanh 5
    float64  exp 2, log 2, log1p 3, tanh 3

Sources: S. Moshier, Cephes Mathematical Library (expf, exp, logf, log). Reduction modulo log 2 in two parts after Cody
and Waite (1980). The float32 tanh is the rational function x (1 + x^2 P) / (1 + x^2 Q), P and Q of four terms in x^2,
whose relative error on [0, 8.6] is least (2.4e-8), found by weighted least squares (C. Lawson 1961). The float64 tanh
of |x| = r + n log(2) / 2 is (p + e (p + q)) / (q + e (p + q)) with e = (2^n - 1) / 2, where p / q = r (1 + r^2 P) /
(1 + r^2 Q) is tanh r, P and Q of two terms, whose relative error on [0, log(2) / 4] is least (5.4e-18; E. Remez 1934).
"""

from __future__ import annotations

from numba import types
from numba.extending import overload

from fastbp.kernels._jit import jit
from fastbp.kernels.bits import exponent, significand, times_power_of_two
from fastbp.kernels.simd import absolute, copysign, fma, where


def exp(x):
    """e to the power of x."""


def log(x):
    """The natural logarithm of x."""


def tanh(x):
    """The hyperbolic tangent of x."""


def log1p(x):
    """log(1 + x) for x >= 0, without the loss of x against 1 (D. Goldberg 1991, theorem 4)."""


def _by_dtype(function, *, float32, float64):
    """Kernels that call `function` get the implementation for the dtype of their vector."""

    @overload(function)
    def _choose(x):
        return float32 if x.dtype == types.float32 else float64


def _exp32(x):
    shifted = fma(x, 1.44269504088896341, 12582912.0)  # 1.5 2^23: rounds x / log 2 to an integer n in the last bits
    n = shifted - 12582912.0
    r = fma(n, -0.693359375, x)
    r = fma(n, 2.12194440e-4, r)
    p = fma(r, 1.9875691500e-4, 1.3981999507e-3)
    p = fma(p, r, 8.3334519073e-3)
    p = fma(p, r, 4.1665795894e-2)
    p = fma(p, r, 1.6666665459e-1)
    p = fma(p, r, 5.0000001201e-1)
    y = fma(p, r * r, r) + 1.0
    y = times_power_of_two(y, shifted)
    y = where(x < -87.33654, 0.0, y)
    y = where(x > 88.72283, float("inf"), y)
    return where(x != x, x, y)


@jit
def _reduced64(x):
    """r and n of x = r + n log 2 with |r| <= log(2) / 2; n as `times_power_of_two` wants it."""
    shifted = fma(x, 1.44269504088896341, 6755399441055744.0)  # 1.5 2^52
    n = shifted - 6755399441055744.0
    return fma(n, -2.3190468138462996e-17, fma(n, -0.6931471805599453, x)), shifted


@jit
def _rational64(r):
    """P and Q of e^r - 1 = 2 p / (Q - p) with p = r + r^3 P, for |r| <= log(2) / 2."""
    rr = r * r
    q = fma(rr, 3.00198505138664455042e-6, 2.52448340349684104192e-3)
    q = fma(q, rr, 2.27265548208155028766e-1)
    return fma(rr, 1.26177193074810590878e-4, 3.02994407707441961300e-2), fma(q, rr, 2.0)


def _exp64(x):
    r, shifted = _reduced64(x)
    p, q = _rational64(r)
    p = r * fma(p, r * r, 1.0)
    y = times_power_of_two(fma(p / (q - p), 2.0, 1.0), shifted)
    y = where(x < -708.3964185322641, 0.0, y)
    y = where(x > 709.782712893384, float("inf"), y)
    return where(x != x, x, y)


def _log32(x):
    e = exponent(x)
    s = significand(x)
    small = s < 0.707106781186547524
    e = where(small, e - 1.0, e)
    f = where(small, s + s, s) - 1.0
    ff = f * f
    p = fma(f, 7.0376836292e-2, -1.1514610310e-1)
    p = fma(p, f, 1.1676998740e-1)
    p = fma(p, f, -1.2420140846e-1)
    p = fma(p, f, 1.4249322787e-1)
    p = fma(p, f, -1.6668057665e-1)
    p = fma(p, f, 2.0000714765e-1)
    p = fma(p, f, -2.4999993993e-1)
    p = fma(p, f, 3.3333331174e-1)
    y = fma(e, -2.12194440e-4, p * f * ff)
    y = fma(e, 0.693359375, f + fma(ff, -0.5, y))
    y = where(x < 1.17549435e-38, float("-inf"), y)
    y = where(x < 0.0, float("nan"), y)
    y = where(x > 3.4028234e38, x, y)
    return where(x != x, x, y)


def _log64(x):
    e = exponent(x)
    s = significand(x)
    small = s < 0.707106781186547524
    e = where(small, e - 1.0, e)
    f = where(small, s + s, s) - 1.0
    ff = f * f
    p = fma(f, 1.01875663804580931796e-4, 4.97494994976747001425e-1)
    p = fma(p, f, 4.70579119878881725854)
    p = fma(p, f, 1.44989225341610930846e1)
    p = fma(p, f, 1.79368678507819816313e1)
    p = fma(p, f, 7.70838733755885391666)
    q = f + 1.12873587189167450590e1
    q = fma(q, f, 4.52279145837532221105e1)
    q = fma(q, f, 8.29875266912776603211e1)
    q = fma(q, f, 7.11544750618563894466e1)
    q = fma(q, f, 2.31251620126765340583e1)
    y = fma(e, -2.121944400546905827679e-4, f * (ff * p / q))
    y = fma(e, 0.693359375, f + fma(ff, -0.5, y))
    y = where(x < 2.2250738585072014e-308, float("-inf"), y)
    y = where(x < 0.0, float("nan"), y)
    y = where(x > 1.7976931348623157e308, x, y)
    return where(x != x, x, y)


def _log1p(x):
    w = x + 1.0
    corrected = log(w) * (x / (w - 1.0))
    return where(absolute(w - 1.0) > 0.0, corrected, x)


def _tanh32(x):
    c = where(x > 8.01272964, 8.01272964, x)  # from there on it is 1
    c = where(c < -8.01272964, -8.01272964, c)
    cc = c * c
    p = fma(cc, 1.4146517735014186e-08, 2.1171455955482088e-05)
    p = fma(p, cc, 3.5295209381729364e-03)
    p = fma(p, cc, 1.3409553468227386e-01)
    q = fma(cc, 8.097670729512174e-07, 3.3412722405046225e-04)
    q = fma(q, cc, 2.6005921885371208e-02)
    q = fma(q, cc, 4.674288034439087e-01)
    q = fma(q, cc, 1.0)
    return fma(c * cc, p, c) / q


def _tanh64(x):
    size = where(absolute(x) > 22.0, 22.0, absolute(x))  # beyond, it is 1
    shifted = fma(size, 2.8853900817779268, 6755399441055744.0)  # as in exp, of e^2|x|
    n = shifted - 6755399441055744.0
    r = fma(n, -0.34657359027997264, size)  # |x| = r + n log(2) / 2, but for what p gets of it
    rr = r * r
    p = r + fma(r * rr, fma(rr, 1.0574197421154637e-3, 1.1109938292712047e-1), n * -1.1595234069231481e-17)
    q = fma(fma(rr, 1.5868325164127900e-2, 4.4443271626044806e-1), rr, 1.0)
    half = times_power_of_two(0.5, shifted)  # 2^n / 2; of a NaN any: r is one then
    e = half - 0.5
    return copysign(fma(e, q, (half + 0.5) * p) / fma(e, p + q, q), x)


_by_dtype(exp, float32=_exp32, float64=_exp64)
_by_dtype(log, float32=_log32, float64=_log64)
_by_dtype(log1p, float32=_log1p, float64=_log1p)
_by_dtype(tanh, float32=_tanh32, float64=_tanh64)
