"""Waits: how many pauses a thread makes before it sleeps, and what it learns from those waits that are over."""

from __future__ import annotations

import numba
import numpy as np

from fastbp.engine.memory import aligned_zeros
from fastbp.kernels import threads
from fastbp.kernels.pointers import pointer
from fastbp.kernels.threads import TEAM_WORDS


class Waits:
    """A thread's waits for a word that is not what they wait for, so that no sleep takes time."""

    def __init__(self) -> None:
        self.words = aligned_zeros(TEAM_WORDS, np.int64)

    def step(self, waits: int) -> int:
        """Do one step, after so many; return how many it has been then."""
        return int(wait_step(self.words, waits))

    def sleep(self) -> None:
        """Wait until all pauses are used up, and sleep once."""
        assert self.step(threads._SPINS) == threads._SPINS + 1

    def end(self, waits: int) -> None:
        """End a wait after so many steps."""
        end_of_wait(self.words, waits)

    @property
    def pauses(self) -> int:
        """How many there are before a sleep, most of the time."""
        return int(pauses(self.words))


@numba.njit(nogil=True)
def wait_step(words, waits):  # type: ignore[no-untyped-def]
    return threads._wait(pointer(words), threads.STARTED, 1, waits)


@numba.njit(nogil=True)
def end_of_wait(words, waits):  # type: ignore[no-untyped-def]
    threads._remember(pointer(words), waits)


@numba.njit(nogil=True)
def pauses(words):  # type: ignore[no-untyped-def]
    return threads._patience(pointer(words))


def test_each_sleep_halves_the_pauses() -> None:
    waits, n = Waits(), threads._HALVINGS
    assert waits.pauses == threads._SPINS
    for sleeps in range(1, n + 3):
        waits.sleep()
        assert waits.pauses == threads._SPINS >> min(sleeps, n)
        assert waits.step(threads._SPINS + 1) == threads._SPINS + 1  # the same wait goes on sleeping
        assert waits.pauses == threads._SPINS >> min(sleeps, n)
        assert waits.step(0) == 1
        assert waits.step(waits.pauses - 1) == waits.pauses
        waits.end(threads._SPINS + 1)
    assert waits.words[threads.ASLEEP] == 0


def test_waits_without_a_sleep_double_the_pauses() -> None:
    waits = Waits()
    waits.sleep()
    waits.sleep()
    for few in threads._SPINS >> 2, threads._SPINS >> 1, threads._SPINS:
        assert waits.pauses == few
        for _ in range(threads._PROVEN):
            waits.end(0)
    assert waits.words[threads.DOUBT] == 0


def test_now_and_then_a_wait_has_all_pauses() -> None:
    """After so many sleeps, twice as many, and so on; if they are enough there are more from then on."""
    waits, all_pauses = Waits(), []
    for sleeps in range(5 * threads._TRIED):
        waits.words[threads.SLEEPS] = sleeps
        waits.words[threads.DOUBT] = threads._HALVINGS * threads._PROVEN
        few = waits.pauses
        if waits.step(few) == few + 1:
            all_pauses.append(sleeps + 1)
            assert waits.step(threads._SPINS - 1) == threads._SPINS
        assert waits.step(threads._SPINS) == threads._SPINS + 1
    assert all_pauses == [threads._TRIED, 2 * threads._TRIED, 4 * threads._TRIED]
    waits.words[threads.DOUBT] = 6 * threads._PROVEN
    waits.end(waits.pauses + 1)
    assert waits.pauses == threads._SPINS >> 3
    assert waits.words[threads.SLEEPS] == 0
