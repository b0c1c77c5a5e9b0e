"""Shuffling: the samples of an epoch in a new order."""

from __future__ import annotations

from fastbp.kernels._jit import entry


@entry
def shuffle(order, u):
    """Put the elements of `order` into another order, each as likely: u holds as many numbers, uniform in [0, 1).

    R. Durstenfeld, "Algorithm 235: Random permutation", Communications of the ACM 7 (1964). A double has 53 random
    bits, so that likely means within n / 2^53.
    """
    for i in range(len(order) - 1, 0, -1):
        j = int(u[i] * (i + 1))
        order[i], order[j] = order[j], order[i]
