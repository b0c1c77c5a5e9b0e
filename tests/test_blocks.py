"""Blocks: which worker takes which samples of a mini-batch, where each has a replica of the parameters."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from problems import Array

from fastbp.engine.memory import aligned_zeros
from fastbp.kernels import shares, threads
from fastbp.kernels.pointers import pointer


@numba.njit(nogil=True)
def own_rows(rows, block, worker, n_workers):  # type: ignore[no-untyped-def]
    return shares.own_rows(rows, block, True, worker, n_workers)


@numba.njit(nogil=True)
def next_block(words, first, end, rows, block, turn):  # type: ignore[no-untyped-def]
    return shares.next_block(first, end, rows, block, pointer(words), turn)


@numba.njit(nogil=True)
def forget_claims(words, turn):  # type: ignore[no-untyped-def]
    threads.forget_claims(pointer(words), turn)


def taken(words: Array, rows: int, block: int, n_workers: int, turn: int, rng: np.random.Generator) -> list[list[int]]:
    """Return where the blocks begin that each worker took, when they go on in a random order."""
    ends, here = [], []
    for worker in range(n_workers):
        begin, end, *_ = own_rows(rows, block, worker, n_workers)
        ends.append(end)
        here.append(next_block(words, begin, end, rows, block, turn))
    blocks: list[list[int]] = [[] for _ in range(n_workers)]
    speeds = rng.random(n_workers) ** 3
    while at_work := [worker for worker in range(n_workers) if here[worker] < rows]:
        worker = rng.choice(at_work, p=speeds[at_work] / speeds[at_work].sum())
        blocks[worker].append(here[worker])
        here[worker] = next_block(words, here[worker] + block, ends[worker], rows, block, turn)
    forget_claims(words, 1 - turn)
    return blocks


@pytest.mark.parametrize("n_workers", [2, 3, 8])
@pytest.mark.parametrize("rows", [1, 100, 128, 129, 700, 1024, 10_000])
def test_each_block_is_taken_once(rows: int, n_workers: int) -> None:
    rng, words = np.random.default_rng(rows), aligned_zeros(threads.TEAM_WORDS, np.int64)
    for turn in 0, 1, 0, 1, 0:
        blocks = taken(words, rows, 128, n_workers, turn, rng)
        assert sorted(first for of_one in blocks for first in of_one) == list(range(0, rows, 128))


def test_who_is_slower_takes_less() -> None:
    words = aligned_zeros(threads.TEAM_WORDS, np.int64)
    rows, first, begins = 8000, 0, []
    ends = [own_rows(rows, 100, worker, 2)[1] for worker in range(2)]
    assert ends == [3000, 6000]
    while first < rows:  # the other stands still in its first block
        begins.append(first)
        first = next_block(words, first + 100, ends[0], rows, 100, 0)
    assert begins == [*range(0, 3000, 100), *range(6000, 8000, 100)]
    assert next_block(words, ends[1], ends[1], rows, 100, 0) == rows
