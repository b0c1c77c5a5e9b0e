"""Chain: the layers that coefs_ and intercepts_ make, as they are at this moment, since users write into them.

Packed layers are kept from one prediction to the next beside the estimator, not in it, and with copies of the arrays
that they were made of: whoever writes into those, or replaces them, gets others.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from fastbp.architecture import Architecture
from fastbp.engine.evaluation import layout_of

__all__ = ["chain", "packed"]

Floats = NDArray[Any]
# scikit-learn's names of activations, and fastbp's where they differ
ACTIVATIONS = {"logistic": "sigmoid"}
# Numbers that are kept at most, for each estimator: of more, predictions take longer than packing
KEPT = 1 << 20
# Numbers up to which arrays are compared faster as bytes
FEW = 4096


def chain(
    coefs: Sequence[Floats], intercepts: Sequence[Floats], hidden: str, output: str, X_dtype: Any = None
) -> tuple[Architecture, list[Floats], list[Floats]]:
    """Return the architecture that arrays make, their weights as the engine has them, and their biases.

    Its dtype is float32 where all arrays (and X) have no more than that. `hidden` and `output` are scikit-learn's names
    of activations.

    Raises
    ------
    ValueError
        The arrays do not fit together.
    """
    weights, biases = [np.asarray(w) for w in coefs], [np.asarray(b) for b in intercepts]
    shapes = [w.shape for w in weights]
    sizes = [w.shape[0] for w in weights if w.ndim == 2] + [w.shape[1] for w in weights[-1:] if w.ndim == 2]
    if shapes != list(pairwise(sizes)) or [b.shape for b in biases] != [(n,) for n in sizes[1:]] or not weights:
        raise ValueError(
            f"coefs_ has the shapes {shapes} and intercepts_ {[b.shape for b in biases]}, which do not make a "
            "network: each coefs_[l] must be (n_in, n_out) with the n_out of the layer before as its n_in, and "
            "intercepts_[l] (n_out,)"
        )
    dtype = np.result_type(*weights, *biases, *([] if X_dtype is None else [X_dtype]))
    name = "float32" if dtype in (np.float32, np.float16) else "float64"
    return architecture_of(tuple(sizes), hidden, output, name), [w.T for w in weights], biases


@lru_cache(maxsize=64)
def architecture_of(sizes: tuple[int, ...], hidden: str, output: str, dtype: str) -> Architecture:
    """Return the architecture for scikit-learn's names of activations."""
    return Architecture.of(
        sizes, hidden=ACTIVATIONS.get(hidden, hidden), output=ACTIVATIONS.get(output, output), dtype=dtype
    )


class _Kept(NamedTuple):
    """What an estimator's arrays were packed to."""

    asked: tuple[str, str, Any]
    arrays: list[Floats]  # copies
    architecture: Architecture
    packed: Floats  # weights and biases

    def is_of(self, arrays: Sequence[Any]) -> bool:
        """Whether arrays are those that were packed, to the bit."""
        return len(arrays) == len(self.arrays) and all(
            type(array) is np.ndarray and array.dtype == kept.dtype and array.shape == kept.shape and _same(array, kept)
            for array, kept in zip(arrays, self.arrays, strict=True)
        )


def _same(array: Floats, kept: Floats) -> bool:
    if array.dtype.kind == "f" and array.itemsize <= 8:  # 0 and -0 differ, and a NaN is itself
        if array.size <= FEW:
            return array.tobytes() == kept.tobytes()
        bits = f"i{array.itemsize}"
        array, kept = array.view(bits), kept.view(bits)
    return bool((array == kept).all())


_kept: WeakKeyDictionary[Any, _Kept] = WeakKeyDictionary()


def packed(estimator: Any, X_dtype: Any) -> tuple[Architecture, Floats]:
    """Return an estimator's architecture for samples of this dtype, and its weights and biases packed.

    Raises
    ------
    ValueError
        As `chain`.
    """
    coefs, intercepts = estimator.coefs_, estimator.intercepts_
    asked = estimator.activation, estimator.out_activation_, X_dtype
    arrays = [*coefs, *intercepts]
    keeps = isinstance(estimator, Hashable) and sum(np.size(array) for array in arrays) <= KEPT
    if keeps:
        kept = _kept.get(estimator)
        if kept is not None and kept.asked == asked and kept.is_of(arrays):
            return kept.architecture, kept.packed
        arrays = [np.array(array) for array in arrays]
    architecture, weights, biases = chain(arrays[: len(coefs)], arrays[len(coefs) :], *asked)
    flat = layout_of(architecture).pack(weights, biases)
    if keeps:
        _kept[estimator] = _Kept(asked, arrays, architecture, flat)
    return architecture, flat
