"""Measures: the mean cost of samples, and the share of them whose class is right."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.architecture import Architecture
from fastbp.engine.evaluation import Evaluator
from fastbp.engine.sparse import SparseRows
from fastbp.inputs import check_trusted
from fastbp.kernels.layers import COST, HITS
from fastbp.targets import Targets

__all__ = ["accuracy", "classifies", "measure"]


def classifies(architecture: Architecture, wanted: Targets) -> bool:
    """Return whether accuracy means anything: the targets are classes."""
    if architecture.n_out == 1:
        return architecture.loss == "cross_entropy"
    return architecture.output == "softmax" or wanted.are_classes


def measure(
    evaluator: Evaluator,
    weights: NDArray[Any],
    samples: NDArray[Any] | SparseRows,
    wanted: Targets,
    n_threads: int | None,
    weight: NDArray[np.float64] | None = None,
) -> tuple[float, float | None]:
    """Return the mean cost of samples, and their accuracy or None where it means nothing."""
    classify = classifies(evaluator.architecture, wanted)
    report = _report(evaluator, weights, samples, wanted, n_threads, classify)
    return _mean(report[:, COST], weight), _mean(report[:, HITS], weight) if classify else None


def accuracy(
    evaluator: Evaluator,
    weights: NDArray[Any],
    samples: NDArray[Any] | SparseRows,
    wanted: Targets,
    n_threads: int | None,
    weight: NDArray[np.float64] | None = None,
) -> float:
    """Return the share of samples, or of their weight, whose class is right: that of targets is their largest."""
    return _mean(_report(evaluator, weights, samples, wanted, n_threads, True)[:, HITS], weight)


def _report(
    evaluator: Evaluator,
    weights: NDArray[Any],
    samples: NDArray[Any] | SparseRows,
    wanted: Targets,
    n_threads: int | None,
    classify: bool,
) -> NDArray[np.float64]:
    """Return cost and hit of each sample; refuse samples with numbers that are not finite."""
    return evaluator.evaluate(
        weights, samples, wanted.array, classify=classify, n_threads=n_threads,
        doubt=lambda: check_trusted(samples),
    )  # fmt: skip


def _mean(values: NDArray[np.float64], weight: NDArray[np.float64] | None) -> float:
    return float(values.mean() if weight is None else np.average(values, weights=weight))
