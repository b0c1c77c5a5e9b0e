"""exp, log, log1p, tanh and the activations made of them keep the stated ULP; NaN, infinities, limits are right.

An error is measured in units in the last place of the correctly rounded result: |computed - exact| / ulp(rounded). The
exact values come from NumPy's float64 functions for float32 (their own error is some 2^-29 of such a unit), and from
mpmath or an 80-bit long double for float64.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import mpmath
import numba
import numpy as np
import pytest
from elementwise import Floats, elementwise, stated_ulps, ulp
from naive import ACTIVATIONS, KERNEL, REFERENCE, share_of_bound, tolerance

from fastbp import reference
from fastbp.kernels import activations, elementary

FUNCTIONS = ["exp", "log", "log1p", "tanh"]
DTYPES = ["float32", "float64"]
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan]
CHUNK = 1 << 17
# where all 2^32 of them have their largest error
WORST32 = {
    "exp": -5.877884387969971,
    "log": 1.4136420488357544,
    "log1p": 0.01562493946403265,
    "tanh": 6.44223309,
}


@cache
def kernel(name: str) -> Any:
    return elementwise(getattr(elementary, name))


@cache
def activation(name: str) -> tuple[Any, Any]:
    """Return a(z) and sigma'(z) of an activation as functions of arrays."""
    function = activations.ACTIVATIONS[name].function
    return elementwise(_part(function, 0)), elementwise(_part(function, 1))


def _part(function: Any, part: int) -> Any:
    @numba.njit(error_model="numpy")
    def chosen(z):  # type: ignore[no-untyped-def]
        return function(z)[part]

    return chosen


def in_domain(name: str, x: Floats) -> Floats:
    """Return the arguments that the stated bound speaks of, or whose special value is defined."""
    return x[~(x < 0) & ~np.isposinf(x)] if name == "log1p" else x


def as_zero(x: Floats) -> Floats:
    """Return x with subnormal numbers as zeros."""
    return np.where(np.abs(x) < np.finfo(x.dtype).tiny, np.copysign(0, x), x).astype(x.dtype)


def boundaries(name: str, dtype: str) -> Floats:
    """Return arguments at which a kernel changes its formula or its result leaves the normal range, and neighbours."""
    info = np.finfo(dtype)
    limits = np.log([info.tiny, info.max]) if dtype == "float64" else np.log(np.array([info.tiny, info.max], "float64"))
    places = {
        "exp": [*limits, *(np.arange(-150, 150) * np.log(2)), *((np.arange(-150, 150) + 0.5) * np.log(2))],
        "log": [info.tiny, info.max, np.sqrt(0.5), 1.0, *(2.0 ** np.arange(-120, 120)), *(2.0 ** np.arange(-9.5, 9))],
        "log1p": [info.tiny, info.eps, info.eps / 2, 1.0, np.sqrt(2) - 1, *(2.0 ** np.arange(-60, 60))],
        "tanh": [info.tiny, 0.625, 8.01272964, 9.01, 19.06, 354.0, 355.0, *limits, 0.5, 1.0, 2.0],
    }[name]
    bits = np.array(places, dtype).view(f"i{info.bits // 8}")
    near = (bits[:, None] + np.arange(-40, 41)).ravel()
    x = near.view(dtype)
    return in_domain(name, np.concatenate([x, -x]))


def check_specials(name: str, x: Floats, y: Floats) -> None:
    """Check NaN, infinities, zeros, subnormal numbers, and arguments whose result is not finite."""
    nan = np.isnan(x) | ((x < 0) & (as_zero(x) != 0) if name == "log" else False)
    np.testing.assert_array_equal(np.isnan(y), nan, err_msg=f"{name}: NaN for NaN and only for that")
    zero = as_zero(x) == 0
    at_zero = {"exp": 1.0, "log": -np.inf, "log1p": 0.0, "tanh": 0.0}[name]
    np.testing.assert_array_equal(as_zero(y[zero]), at_zero)
    if name in ("exp", "log"):
        assert (y[np.isposinf(x)] == np.inf).all()
    if name == "exp":
        assert (y[np.isneginf(x)] == 0).all()
    if name == "tanh":
        assert not (np.abs(y) > 1).any()


def errors(y: Floats, exact: Floats) -> Floats:
    """Return the error of y in ulp; `exact` has more digits than y, results below the normal range may be 0."""
    tiny = np.finfo(y.dtype).tiny
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = exact.astype(y.dtype)
    np.testing.assert_array_equal(y[np.isinf(rounded)], rounded[np.isinf(rounded)])
    vanishes = np.abs(rounded) < tiny
    assert (np.abs(y[vanishes]) <= tiny).all()
    counts = np.isfinite(rounded) & ~vanishes
    difference = np.abs(y[counts].astype(exact.dtype) - exact[counts])
    return (difference / ulp(rounded[counts])).astype(np.float64)


def measure(name: str, x: Floats, exact: Floats) -> float:
    """Return the largest error in ulp, having checked all that has no error in ulp."""
    y = kernel(name)(x)
    check_specials(name, x, y)
    return float(errors(y, exact).max(initial=0))


def exact32(name: str, x: Floats) -> Floats:
    with np.errstate(all="ignore"):
        return getattr(np, name)(as_zero(x).astype(np.float64))


def stratified32() -> Floats:
    """Return float32 of every sign and exponent, with evenly spread mantissas and those around 0, 1/2 and 1."""
    mantissas = np.unique(
        np.concatenate([np.arange(0, 1 << 23, 1021), [1, 2, 3, (1 << 22) - 1, (1 << 22), (1 << 23) - 1]])
    )
    signs_and_exponents = np.arange(512, dtype=np.uint32) << np.uint32(23)
    return (signs_and_exponents[:, None] | mantissas.astype(np.uint32)).ravel().view(np.float32)


def stratified64(name: str, per_exponent: int, within: int) -> Floats:
    """Return float64 of every sign and exponent, and more of them where the function is not trivial or constant."""
    rng = np.random.default_rng(1)
    exponents = np.repeat(np.arange(2048, dtype=np.uint64) << np.uint64(52), per_exponent)
    wild = (exponents | rng.integers(0, 1 << 52, exponents.size, dtype=np.uint64)).view(np.float64)
    low, high = {"exp": (-708.3, 709.7), "log": (0.3, 3.0), "log1p": (0.0, 1.0), "tanh": (-20.0, 20.0)}[name]
    wild = np.concatenate([wild, -wild, rng.uniform(low, high, within), rng.uniform(-1.5, 1.5, within // 2)])
    return in_domain(name, np.concatenate([SPECIAL, boundaries(name, "float64"), wild]))


def test_bounds_are_stated() -> None:
    assert set(stated_ulps()) == {(name, dtype) for name in FUNCTIONS for dtype in DTYPES}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_of_every_exponent(name: str) -> None:
    known = np.array([*SPECIAL, WORST32[name]], np.float32)
    x = in_domain(name, np.concatenate([known, boundaries(name, "float32"), stratified32()]))
    assert len(x) > 10**6
    largest = measure(name, x, exact32(name, x))
    assert 0.5 < largest <= stated_ulps()[name, "float32"]  # below 1/2 nothing was measured


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_all_of_them(name: str) -> None:
    def one(start: int) -> float:
        x = in_domain(name, np.arange(start, start + CHUNK, dtype=np.uint32).view(np.float32))
        return measure(name, x, exact32(name, x))

    one(0)  # compiles
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        largest = max(pool.map(one, range(0, 1 << 32, CHUNK)))
    print(f"{name} float32: {largest:.4f} ulp")
    assert 0.5 < largest <= stated_ulps()[name, "float32"]


def exact64(name: str, x: Floats) -> Iterator[mpmath.mpf]:
    function = getattr(mpmath, name)
    for value in x.tolist():
        yield function(mpmath.mpf(value))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_of_every_exponent(name: str) -> None:
    x = stratified64(name, 2, 6_000)
    y = kernel(name)(x)
    check_specials(name, x, y)
    low, high = {"exp": (-708.396, 709.782), "log": (2.3e-308, np.inf), "log1p": (2.3e-308, np.inf)}.get(
        name, (-np.inf, np.inf)
    )
    chosen = np.isfinite(x) & (x >= low) & (x < high) & (as_zero(x) != 0)
    largest = 0.0
    with mpmath.workprec(120):
        for got, exact in zip(y[chosen].tolist(), exact64(name, x[chosen]), strict=True):
            rounded = float(exact)
            if abs(rounded) >= np.finfo(np.float64).tiny:
                largest = max(largest, float(abs(got - exact)) / float(np.spacing(abs(rounded))))
    assert 0.5 < largest <= stated_ulps()[name, "float64"]


@pytest.mark.slow
@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double has no more digits than float64 here")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_millions(name: str) -> None:
    x = stratified64(name, 1000, 10_000_000)
    with np.errstate(all="ignore"):
        exact = getattr(np, name)(as_zero(x).astype(np.longdouble))
    largest = measure(name, x, exact)
    print(f"{name} float64: {largest:.4f} ulp")
    assert 0.5 < largest <= stated_ulps()[name, "float64"]


# Activations


def arguments(dtype: str) -> Floats:
    """Return z of every size and sign, in order."""
    tiny = np.finfo(dtype).tiny
    sizes = np.concatenate([np.geomspace(tiny, np.finfo(dtype).max / 2, 20_000), np.linspace(0, 100, 20_001)])
    return np.unique(np.concatenate([-sizes, sizes]).astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["identity", "sigmoid", "tanh", "relu"])
class TestActivation:
    def test_within_the_bound_that_follows_from_its_functions(self, name: str, dtype: str) -> None:
        z = arguments(dtype)
        computed = [function(z) for function in activation(name)]
        a = reference.ACTIVATIONS[name].sigma(z.astype(np.float64))
        expected = a, reference.ACTIVATIONS[name].sigma_prime(a)
        bounds = [ACTIVATIONS[name](arithmetic.given(z)) for arithmetic in (KERNEL[dtype], REFERENCE)]
        for got, wanted, by_kernel, by_reference in zip(computed, expected, *bounds, strict=True):
            assert share_of_bound(got, wanted, tolerance(by_kernel, by_reference)) <= 1

    def test_limits(self, name: str, dtype: str) -> None:
        z = np.concatenate([arguments(dtype), np.array([np.inf, -np.inf], dtype)])
        a, prime = (function(z) for function in activation(name))
        low = {"identity": -np.inf, "tanh": -1}.get(name, 0)
        high = {"sigmoid": 1, "tanh": 1}.get(name, np.inf)
        assert (a >= low).all()
        assert (a <= high).all()
        assert (prime >= 0).all()
        assert (prime <= 1).all()

    def test_never_falls_by_more_than_its_error(self, name: str, dtype: str) -> None:
        z = arguments(dtype)
        a = activation(name)[0](z).astype(np.longdouble)
        error = ACTIVATIONS[name](KERNEL[dtype].given(z))[0].error
        assert (np.diff(a) >= -(error[1:] + error[:-1])).all()

    def test_at_zero(self, name: str, dtype: str) -> None:
        for zero in 0.0, -0.0:
            a, prime = (function(np.array([zero], dtype))[0] for function in activation(name))
            expected = {"identity": (0, 1), "sigmoid": (0.5, 0.25), "tanh": (0, 1), "relu": (0, 0)}[name]
            assert (a, prime) == expected

    def test_odd_or_complementary(self, name: str, dtype: str) -> None:
        z = arguments(dtype)
        a, _ = activation(name)
        if name in ("identity", "tanh"):
            np.testing.assert_array_equal(a(-z), -a(z))
        elif name == "relu":
            np.testing.assert_array_equal(a(z) - a(-z), z)
        else:
            np.testing.assert_allclose(a(z) + a(-z), 1, rtol=0, atol=4 * np.finfo(dtype).eps)

    def test_nan_stays_nan(self, name: str, dtype: str) -> None:
        nan = np.array([np.nan, -np.nan], dtype)
        payload = (nan.view(f"u{nan.itemsize}") | 5).astype(f"u{nan.itemsize}").view(dtype)
        for function in activation(name):
            assert np.isnan(function(nan)).all()
            assert np.isnan(function(payload)).all()
