"""Architecture: the sizes, activations, loss, biases and dtype of a network, validated once and immutable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from fastbp.arguments import integer, one_of
from fastbp.kernels.activations import ACTIVATIONS
from fastbp.kernels.losses import LOSSES

__all__ = ["Architecture", "Bias"]

Bias = Literal[True, False, "fixed"]
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Architecture:
    """What a network is, apart from its weights.

    Make one with `Architecture.of`, which validates.

    Attributes
    ----------
    sizes : tuple of int
        Neurons of each layer, from the inputs to the outputs.
    activations : tuple of str
        One a weight layer; the last is the output's.
    loss : str
    bias : True, False or "fixed"
        Trained, none, or kept as set.
    dtype : numpy.dtype
        float32 or float64.
    """

    sizes: tuple[int, ...]
    activations: tuple[str, ...]
    loss: str
    bias: Bias
    dtype: np.dtype[Any]

    @classmethod
    def of(
        cls,
        sizes: Sequence[int],
        *,
        hidden: str | Sequence[str] = "sigmoid",
        output: str = "sigmoid",
        loss: str | None = None,
        bias: Bias = True,
        dtype: DTypeLike = "float32",
    ) -> Architecture:
        """Validate what a user wrote.

        Raises
        ------
        ValueError
            Fewer than two sizes, a size below 1, unknown names, a loss that does not go with the output, a wrong number
            of hidden activations, a dtype other than float32 and float64.
        TypeError
            A size that is not an integer; names that are not strings; a dtype that is none.

        Examples
        --------
        >>> Architecture.of([64, 30, 10], output="softmax").loss
        'cross_entropy'
        """
        checked = _sizes(sizes)
        activations = (*_hidden(hidden, len(checked) - 2), one_of(output, "output", ACTIVATIONS))
        return cls(checked, activations, _loss(loss, output), _bias(bias), _dtype(dtype))

    @property
    def n_in(self) -> int:
        """Number of inputs."""
        return self.sizes[0]

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return self.sizes[-1]

    @property
    def output(self) -> str:
        """Activation of the output layer."""
        return self.activations[-1]

    @property
    def n_parameters(self) -> int:
        """Number of weights and of biases (those that are fixed too)."""
        n_weights = sum(n_in * n_out for n_in, n_out in zip(self.sizes, self.sizes[1:], strict=False))
        return n_weights + (sum(self.sizes[1:]) if self.bias is not False else 0)


def _sizes(sizes: Any) -> tuple[int, ...]:
    try:
        if isinstance(sizes, str | bytes | set | frozenset | dict):
            raise TypeError
        given = list(sizes)
    except TypeError:
        raise TypeError(f"sizes is {sizes!r}, but must be a list of integers such as [784, 30, 10]") from None
    try:
        checked = tuple(integer(size, "sizes") for size in given)
    except TypeError:
        raise TypeError(f"sizes is {given!r}, but all of them must be integers, such as [784, 30, 10]") from None
    if len(checked) < 2:
        raise ValueError(f"sizes is {given!r}, but needs at least the inputs and the outputs, such as [784, 30, 10]")
    if min(checked) < 1:
        raise ValueError(f"sizes is {given!r}, but every layer needs at least 1 neuron")
    return checked


def _hidden(hidden: Any, n_hidden: int) -> tuple[str, ...]:
    allowed = [name for name, activation in ACTIVATIONS.items() if activation.hidden]
    if isinstance(hidden, str):
        return (one_of(hidden, "hidden", allowed),) * n_hidden
    if not isinstance(hidden, Sequence):
        raise TypeError(f"hidden is {hidden!r}, but must be the name of an activation, or a list of one a hidden layer")
    if len(hidden) != n_hidden:
        raise ValueError(
            f"hidden has {len(hidden)} activations, but sizes has {n_hidden} hidden layers: give one a layer, or one "
            "name for all"
        )
    return tuple(one_of(name, f"hidden[{l}]", allowed) for l, name in enumerate(hidden))


def _loss(given: Any, output: str) -> str:
    if given is None:
        return next(name for name in ("cross_entropy", "poisson", "quadratic") if output in LOSSES[name])
    loss = one_of(given, "loss", LOSSES)
    if output not in LOSSES[loss]:
        fitting = [name for name, outputs in LOSSES.items() if output in outputs]
        raise ValueError(
            f"loss is {loss!r}, which does not go with output {output!r}: use {' or '.join(map(repr, fitting))}, or an "
            f"output of {', '.join(map(repr, LOSSES[loss]))}"
        )
    return loss


def _bias(bias: Any) -> Bias:
    if bias is True or bias is False or (isinstance(bias, str) and bias == "fixed"):
        return bias  # type: ignore[return-value]
    raise ValueError(f"bias is {bias!r}, but must be True (trained), False (none) or 'fixed' (kept as set)")


def _dtype(dtype: Any) -> np.dtype[Any]:
    try:
        checked: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        error = ValueError if isinstance(dtype, str) else TypeError  # a name that says nothing; no name at all
        raise error(f"dtype is {dtype!r}, but must be one of {', '.join(map(repr, DTYPES))}") from None
    if dtype is None or checked.name not in DTYPES or not checked.isnative:
        raise ValueError(f"dtype is {dtype!r}, but must be one of {', '.join(map(repr, DTYPES))}")
    return checked
