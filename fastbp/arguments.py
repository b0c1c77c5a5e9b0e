"""Arguments: what a user wrote, checked at the door. Each check returns the value, or raises an error that names it."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["generator", "integer", "number", "one_each", "one_of", "pair", "threads", "truth", "whole"]


def whole(value: Any, name: str, least: int) -> int:
    """Return an integer of at least `least`."""
    checked = integer(value, name)
    if checked < least:
        raise ValueError(f"{name} is {checked}, but must be at least {least}")
    return checked


def integer(value: Any, name: str) -> int:
    """Return an integer; True and False are none."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, but must be an integer") from None


def threads(n_threads: Any) -> int | None:
    """Return a number of threads, or None for as many as the work repays."""
    return None if n_threads is None else whole(n_threads, "n_threads", 1)


def number(value: Any, name: str, low: float, high: float, *, low_allowed: bool) -> float:
    """Return a real number between low and high, without high."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} is {value!r}, but must be a number")
    try:
        checked = float(value)
    except OverflowError:  # an integer beyond all floats
        checked = float("inf") if value > 0 else float("-inf")
    if not ((low <= checked if low_allowed else low < checked) and checked < high):
        interval = f"at least {low:g}" if low_allowed else f"greater than {low:g}"
        raise ValueError(f"{name} is {value!r}, but must be {interval} and less than {high:g}")
    return checked


def truth(value: Any, name: str) -> bool:
    """Return True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {value!r}, but must be True or False")
    return bool(value)


def one_of(value: Any, name: str, allowed: Iterable[str]) -> str:
    """Return one of the names that are allowed."""
    names = list(allowed)
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}, but must be one of the names {', '.join(map(repr, names))}")
    if value not in names:
        raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(map(repr, names))}")
    return value


def pair(given: Any, name: str, what: str) -> tuple[Any, Any]:
    """Return the two items of a tuple or list."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise ValueError(f"{name} is a {type(given).__name__}, but must be a pair {what}")
    return given[0], given[1]


def one_each(given: Any, n_layers: int, name: str, what: str) -> list[Any]:
    """Return a list with one item for each weight layer."""
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise TypeError(f"{name} is a {type(given).__name__}, but must be {what}")
    items = list(given)
    if len(items) != n_layers:
        raise ValueError(f"{name} has {len(items)} items, but this network has {n_layers} weight layers: give {what}")
    return items


def generator(seed: Any) -> np.random.Generator:
    """Return the generator that a seed starts."""
    allowed = int | np.integer | np.random.Generator | np.random.SeedSequence
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, allowed)):
        raise TypeError(f"seed is {seed!r}, but must be an integer, a numpy.random.Generator, a SeedSequence or None")
    if isinstance(seed, int | np.integer) and seed < 0:
        raise ValueError(f"seed is {seed!r}, but must be an integer of at least 0")
    return np.random.default_rng(seed)
