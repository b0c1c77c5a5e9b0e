"""Initializers: shapes, moments and limits of the draws, and their repeatability."""

from __future__ import annotations

import numpy as np
import pytest

from fastbp.initializers import INITIALIZERS

N_IN, N_OUT = 400, 250

# name -> variance of w, largest |w| where there is one, variance of b
MOMENTS = {
    "scaled_gaussian": (1 / N_IN, None, 1.0),
    "gaussian": (1.0, None, 1.0),
    "glorot_uniform": (2 / (N_IN + N_OUT), np.sqrt(6 / (N_IN + N_OUT)), 0.0),
    "glorot_normal": (2 / (N_IN + N_OUT), None, 0.0),
    "he_uniform": (2 / N_IN, np.sqrt(6 / N_IN), 0.0),
    "he_normal": (2 / N_IN, None, 0.0),
    "lecun_normal": (1 / N_IN, None, 0.0),
    "zeros": (0.0, 0.0, 0.0),
}


def test_every_initializer_has_its_moments_stated():
    assert set(INITIALIZERS) == set(MOMENTS)


@pytest.mark.parametrize("name", INITIALIZERS)
@pytest.mark.parametrize(("n_in", "n_out"), [(1, 1), (1, 7), (7, 1), (3, 5)])
def test_shapes_and_dtypes(name, n_in, n_out):
    w, b = INITIALIZERS[name](np.random.default_rng(0), n_in, n_out)
    assert w.shape == (n_out, n_in)
    assert b.shape == (n_out,)
    assert w.dtype == b.dtype == np.float64
    assert w.flags.c_contiguous
    assert np.isfinite(w).all()
    assert np.isfinite(b).all()


@pytest.mark.parametrize("name", INITIALIZERS)
def test_moments(name):
    variance, limit, b_variance = MOMENTS[name]
    w, b = INITIALIZERS[name](np.random.default_rng(1), N_IN, N_OUT)
    # five standard errors of a mean of 100 000 and of a variance (2 sqrt(2/n) relative at most)
    assert abs(w.mean()) <= 5 * np.sqrt(variance / w.size)
    assert abs(w.var() - variance) <= 5 * variance * np.sqrt(2 / w.size)
    assert abs(b.var() - b_variance) <= 5 * b_variance * np.sqrt(2 / b.size)
    if limit is None:
        assert abs(w).max() > 3.5 * np.sqrt(variance), "not truncated"
    else:
        assert 0.999 * limit <= abs(w).max() <= limit
    if b_variance == 0:
        assert not b.any()


@pytest.mark.parametrize("name", sorted(set(INITIALIZERS) - {"zeros"}))
def test_the_seed_decides(name):
    draw = INITIALIZERS[name]
    w, b = draw(np.random.default_rng(5), 4, 3)
    again_w, again_b = draw(np.random.default_rng(5), 4, 3)
    other_w, _ = draw(np.random.default_rng(6), 4, 3)
    np.testing.assert_array_equal(w, again_w)
    np.testing.assert_array_equal(b, again_b)
    assert (w != other_w).all()


def test_a_generator_goes_on_from_layer_to_layer():
    rng = np.random.default_rng(5)
    first, _ = INITIALIZERS["scaled_gaussian"](rng, 4, 3)
    second, _ = INITIALIZERS["scaled_gaussian"](rng, 4, 3)
    assert (first != second).all()
