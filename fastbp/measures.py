"""Measures: the mean cost of samples, and the share of them whose class is right."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.architecture import Architecture
from fastbp.engine.run import evaluate
from fastbp.engine.sparse import SparseRows
from fastbp.inputs import check_trusted
from fastbp.kernels.layers import COST, HITS, Parameters
from fastbp.targets import Targets

__all__ = ["accuracy", "classifies", "measure"]


def classifies(architecture: Architecture, wanted: Targets) -> bool:
    """Return whether accuracy means anything: the targets are classes."""
    if architecture.n_out == 1:
        return architecture.loss == "cross_entropy"
    return architecture.output == "softmax" or wanted.are_classes


def measure(
    architecture: Architecture,
    parameters: Parameters,
    samples: NDArray[Any] | SparseRows,
    wanted: Targets,
    n_threads: int | None,
    weight: NDArray[np.float64] | None = None,
) -> tuple[float, float | None]:
    """Return the mean cost of samples, and their accuracy or None where it means nothing."""
    classify = classifies(architecture, wanted)
    report = evaluate(
        architecture, parameters, samples, wanted.array, classify=classify, n_threads=n_threads,
        doubt=lambda: check_trusted(samples),
    )  # fmt: skip
    cost, hits = (float(np.average(report[:, what], weights=weight)) for what in (COST, HITS))
    return cost, hits if classify else None


def accuracy(
    architecture: Architecture,
    parameters: Parameters,
    samples: NDArray[Any] | SparseRows,
    wanted: Targets,
    n_threads: int | None,
    weight: NDArray[np.float64] | None = None,
) -> float:
    """Return the share of samples, or of their weight, whose class is right: that of targets is their largest."""
    report = evaluate(
        architecture, parameters, samples, wanted.array, classify=True, n_threads=n_threads,
        doubt=lambda: check_trusted(samples),
    )  # fmt: skip
    return float(np.average(report[:, HITS], weights=weight))
