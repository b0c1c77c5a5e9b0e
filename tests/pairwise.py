"""Pairwise coverings: few rows in which any two values of different parameters meet at least once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np


def pairwise(parameters: Mapping[str, Sequence[Any]], seed: int = 0) -> list[dict[str, Any]]:
    """Return rows, each a choice of one value a parameter, that cover all pairs; the same for the same seed.

    Greedy: a row begins with a pair that is missing, and takes from each other parameter the value that covers most of
    the missing pairs with what it has already (the first of equals in a random order, so that rows differ).
    """
    names, values = list(parameters), [list(v) for v in parameters.values()]
    rng = np.random.default_rng(seed)
    n = len(names)
    missing = {(p, q): np.ones((len(values[p]), len(values[q])), bool) for p, q in combinations(range(n), 2)}
    rows = []
    while True:
        (p, q), left = max(missing.items(), key=lambda item: int(item[1].sum()))
        if not left.any():
            return rows
        i, j = rng.choice(np.argwhere(left))
        row = {p: int(i), q: int(j)}
        for r in rng.permutation([r for r in range(n) if r not in row]).tolist():
            gain = np.zeros(len(values[r]))
            for s, chosen in row.items():
                gain += missing[s, r][chosen] if s < r else missing[r, s][:, chosen]
            row[r] = int(np.argmax(gain + rng.random(gain.size) / 2))
        for a, b in combinations(sorted(row), 2):
            missing[a, b][row[a], row[b]] = False
        rows.append({names[r]: values[r][row[r]] for r in range(n)})
