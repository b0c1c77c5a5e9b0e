"""Architecture: what a user may write, what becomes of it, and that it is plain immutable data."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest

from fastbp.architecture import Architecture
from fastbp.kernels.activations import ACTIVATIONS
from fastbp.kernels.losses import LOSSES

HIDDEN = [name for name, row in ACTIVATIONS.items() if row.hidden]
PAIRS = [(loss, output) for loss, outputs in LOSSES.items() for output in outputs]


def test_what_is_left_out():
    a = Architecture.of([784, 30, 10])
    assert a.sizes == (784, 30, 10)
    assert a.activations == ("sigmoid", "sigmoid")
    assert a.loss == "cross_entropy"
    assert a.bias is True
    assert a.dtype == np.float32


def test_what_it_tells():
    a = Architecture.of([5, 4, 3, 2], hidden=["relu", "tanh"], output="softmax", dtype="float64")
    assert (a.n_in, a.n_out, a.output) == (5, 2, "softmax")
    assert a.activations == ("relu", "tanh", "softmax")
    assert a.dtype == np.float64


@pytest.mark.parametrize(("bias", "n"), [(True, 5 * 4 + 4 * 3 + 4 + 3), ("fixed", 5 * 4 + 4 * 3 + 7), (False, 32)])
def test_number_of_parameters(bias, n):
    assert Architecture.of([5, 4, 3], bias=bias).n_parameters == n


@pytest.mark.parametrize(
    "sizes",
    [
        [3, 4, 2],
        (3, 4, 2),
        np.array([3, 4, 2]),
        np.array([3, 4, 2], np.uint8),
        [np.int32(3), np.int64(4), np.uint16(2)],
        iter([3, 4, 2]),
        range(4, 1, -1),
    ],
    ids=repr,
)
def test_sizes_in_any_container(sizes):
    checked = Architecture.of(sizes).sizes
    assert checked in [(3, 4, 2), (4, 3, 2)]
    assert all(type(size) is int for size in checked)


@pytest.mark.parametrize(
    ("output", "loss"),
    [
        ("identity", "quadratic"),
        ("tanh", "quadratic"),
        ("relu", "quadratic"),
        ("sigmoid", "cross_entropy"),
        ("softmax", "cross_entropy"),
        ("exp", "poisson"),
    ],
)
def test_the_canonical_loss_of_an_output(output, loss):
    assert Architecture.of([3, 2], output=output).loss == loss


@pytest.mark.parametrize("output", ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_pair_is_taken_or_refused_with_what_would_go(loss, output):
    if (loss, output) in PAIRS:
        assert Architecture.of([3, 2], loss=loss, output=output).loss == loss
        return
    with pytest.raises(ValueError, match=f"loss is '{loss}'.* output '{output}'") as refused:
        Architecture.of([3, 2], loss=loss, output=output)
    _, _, advice = str(refused.value).partition("use ")
    losses, _, outputs = advice.partition("an output of ")
    assert {name for name in LOSSES if repr(name) in losses} == {name for name in LOSSES if output in LOSSES[name]}
    assert {name for name in ACTIVATIONS if repr(name) in outputs} == set(LOSSES[loss])


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_activations(name):
    assert Architecture.of([3, 4, 5, 2], hidden=name).activations == (name, name, "sigmoid")
    assert Architecture.of([3, 4, 5, 2], hidden=[name, "tanh"]).activations == (name, "tanh", "sigmoid")
    assert Architecture.of([3, 4, 5, 2], hidden=("tanh", name)).activations == ("tanh", name, "sigmoid")


def test_without_hidden_layers():
    assert Architecture.of([3, 2], hidden="tanh").activations == ("sigmoid",)
    assert Architecture.of([3, 2], hidden=[]).activations == ("sigmoid",)


@pytest.mark.parametrize("dtype", ["float32", "f4", np.float32, np.dtype("float32"), "=f4"], ids=repr)
def test_ways_to_say_float32(dtype):
    assert Architecture.of([3, 2], dtype=dtype).dtype == np.float32


@pytest.mark.parametrize("dtype", ["float64", "f8", float, np.float64, np.dtype("float64")], ids=repr)
def test_ways_to_say_float64(dtype):
    assert Architecture.of([3, 2], dtype=dtype).dtype == np.float64


ONE = Architecture.of([3, 4, 2])
OTHERS = [
    Architecture.of([3, 4, 1]),
    Architecture.of([3, 4, 2], hidden="tanh"),
    Architecture.of([3, 4, 2], output="softmax"),
    Architecture.of([3, 4, 2], loss="quadratic"),
    Architecture.of([3, 4, 2], bias=False),
    Architecture.of([3, 4, 2], bias="fixed"),
    Architecture.of([3, 4, 2], dtype="float64"),
]


def test_equal_and_hashable():
    again = Architecture.of(np.array([3, 4, 2]), hidden=["sigmoid"], loss="cross_entropy", dtype=np.float32)
    assert again == ONE
    assert hash(again) == hash(ONE)
    assert len({ONE, again, *OTHERS}) == 1 + len(OTHERS)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Architecture)])
def test_immutable(field):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(ONE, field, getattr(OTHERS[0], field))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
@pytest.mark.parametrize("architecture", [ONE, *OTHERS])
def test_copies_are_equal(architecture, copied):
    again = copied(architecture)
    assert again == architecture
    assert hash(again) == hash(architecture)
    assert again.bias is architecture.bias or architecture.bias == "fixed"


def test_a_list_given_may_change_afterwards():
    sizes, hidden = [3, 4, 2], ["relu"]
    a = Architecture.of(sizes, hidden=hidden)
    sizes[0], hidden[0] = 7, "tanh"
    assert (a.sizes, a.activations) == ((3, 4, 2), ("relu", "sigmoid"))


UNKNOWN = {
    "hidden": dict(hidden="selu"),
    "hidden[1]": dict(hidden=["relu", "selu"]),
    "output": dict(output="selu"),
    "loss": dict(loss="selu"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_names_are_told_what_is_known(name):
    with pytest.raises(ValueError, match="'selu'") as refused:
        Architecture.of([3, 4, 4, 2], **UNKNOWN[name])
    message = str(refused.value)
    known = list(LOSSES) if name == "loss" else list(ACTIVATIONS) if name == "output" else HIDDEN
    assert message.startswith(f"{name} is 'selu'")
    assert [row for row in [*ACTIVATIONS, *LOSSES] if repr(row) in message] == known
