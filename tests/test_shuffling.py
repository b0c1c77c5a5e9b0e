"""Shuffling: the same orders as by the textbook's loop, each as likely as any other."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import chisquare

from fastbp.kernels.shuffling import shuffle


def durstenfeld(elements, u):
    """Return the elements in another order: each place, from the last, takes one of those that are left."""
    left, placed = list(elements), []
    for i in reversed(range(len(left))):
        j = int(u[i] * (i + 1))
        left[j], left[i] = left[i], left[j]
        placed.append(left.pop())
    return placed[::-1]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 53, 1000])
def test_the_same_orders_as_the_textbook(n):
    rng = np.random.default_rng(n)
    elements, u = rng.integers(0, 1 << 60, n), rng.random(n)
    order = elements.copy()
    shuffle(order, u)
    assert order.tolist() == durstenfeld(elements.tolist(), u)
    np.testing.assert_array_equal(np.sort(order), np.sort(elements))


def test_the_largest_number_below_one_keeps_every_element_in_its_place():
    order = np.arange(1 << 20)
    shuffle(order, np.full(len(order), np.nextafter(1.0, 0.0)))
    np.testing.assert_array_equal(order, np.arange(1 << 20))


def test_each_order_is_as_likely():
    rng, order = np.random.default_rng(4), np.arange(4)
    drawn: Counter[tuple[int, ...]] = Counter()
    for _ in range(24_000):
        shuffle(order, rng.random(4))
        drawn[tuple(order.tolist())] += 1
    assert chisquare([drawn[order] for order in permutations(range(4))]).pvalue > 0.01
