"""Whatever of the book's programs is overridden is honoured: the same change in the book's gives the same.

Each case changes our module or network and the book's in the same way, and says whether the engine still trains and
evaluates. Where it does not, every bit is the book's.
"""

from __future__ import annotations

import random
import types
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from nielsen import PAIRS, Spy, assert_close, assert_same_bits, captured, labelled, pairs, seed

from fastbp.nielsen import network, network2

EPOCHS = 3


@dataclass
class Case:
    """One override: `apply(module, monkeypatch)` returns a network; does the engine still train, and evaluate?"""

    apply: Any
    trains: bool
    evaluates: bool
    modules: tuple[str, ...] = ("network", "network2")


def subclass(**methods):
    """Return a case's change: a subclass with these methods, each made from the module and the class below."""

    def apply(module, monkeypatch):
        made = {name: make(module, module.Network) for name, make in methods.items()}
        return type("Own", (module.Network,), made)([7, 5, 10])

    return apply


def on_instance(**methods):
    def apply(module, monkeypatch):
        net = module.Network([7, 5, 10])
        for name, make in methods.items():
            setattr(net, name, types.MethodType(make(module, module.Network), net))
        return net

    return apply


def on_class(**methods):
    def apply(module, monkeypatch):
        for name, make in methods.items():
            monkeypatch.setattr(module.Network, name, make(module, module.Network))
        return module.Network([7, 5, 10])

    return apply


def in_module(**functions):
    def apply(module, monkeypatch):
        for name, function in functions.items():
            monkeypatch.setattr(module, name, function)
        return module.Network([7, 5, 10])

    return apply


def with_cost(make):
    def apply(module, monkeypatch):
        return module.Network([7, 5, 10], cost=make(module))

    return apply


def smoothed(module, cls):
    return lambda self, output_activations, y: (output_activations - y) / (1 + np.abs(output_activations - y))


def clipped_backprop(module, cls):
    original = cls.backprop

    def backprop(self, x, y):
        nabla_b, nabla_w = original(self, x, y)
        return [np.clip(nabla, -0.01, 0.01) for nabla in nabla_b], nabla_w

    return backprop


def noisy_update(module, cls):
    original = cls.update_mini_batch

    def update_mini_batch(self, mini_batch, *numbers):
        original(self, mini_batch, *numbers)
        self.biases[0] += 0.01 * np.random.randn(*self.biases[0].shape)  # noqa: NPY002

    return update_mini_batch


def turned_feedforward(module, cls):
    def feedforward(self, a):
        return 1 - cls_feedforward(self, a)

    cls_feedforward = cls.feedforward
    return feedforward


def counting(module, cls):
    """An evaluation of the user's own, which writes into weights, too."""

    def evaluate(self, data, *args, **options):
        self.weights[0] *= 0.9
        return sum(np.argmax(self.feedforward(x)) != np.argmax(y) for x, y in data)

    return evaluate


def growing(module, cls):
    """An evaluation that changes the samples: the next epoch trains on others."""
    original = getattr(cls, "evaluate", None) or cls.accuracy

    def evaluate(self, data, *args, **options):
        for x, _ in data:
            x *= 0.5
        return original(self, data, *args, **options)

    return evaluate


def wide(z):
    return 0.5 + 0.5 * np.tanh(z / 8)


def wide_prime(z):
    return (1 - np.tanh(z / 8) ** 2) / 16


def sharper(module):
    class Sharper(module.CrossEntropyCost):
        @staticmethod
        def delta(z, a, y):
            return 2 * (a - y)

    return Sharper


def measured(module):
    """A cost that trains as the book's, but is measured otherwise."""

    class Measured(module.CrossEntropyCost):
        @staticmethod
        def fn(a, y):
            return np.abs(a - y).max()

    return Measured


def on_its_instance(module):
    cost = module.QuadraticCost()
    cost.delta = lambda z, a, y: (a - y) ** 3
    return cost


def reading_itself(module):
    class Weighted:
        weight = 0.3

        def fn(self, a, y):
            return self.weight * np.sum((a - y) ** 4)

        def delta(self, z, a, y):
            return self.weight * (a - y) ** 3

    return Weighted()


def patched_cost(module, monkeypatch):
    monkeypatch.setattr(module.CrossEntropyCost, "delta", staticmethod(lambda z, a, y: 0.5 * (a - y)))
    return module.Network([7, 5, 10])


def shifted(j):
    e = np.zeros((10, 1))
    e[(j + 1) % 10] = 1.0
    return e


def others_backprop(module, monkeypatch):
    """A bound method of another network of the same class: the same function, but other weights."""
    net, other = module.Network([7, 5, 10]), module.Network([7, 5, 10])
    net.backprop = other.backprop
    return net


ONE, TWO = ("network",), ("network2",)
CASES = {
    "nothing": Case(subclass(), True, True),
    "something else": Case(subclass(name=lambda module, cls: "mine"), True, True),
    "cost_derivative, subclass": Case(subclass(cost_derivative=smoothed), False, True, ONE),
    "cost_derivative, instance": Case(on_instance(cost_derivative=smoothed), False, True, ONE),
    "cost_derivative, class": Case(on_class(cost_derivative=smoothed), False, True, ONE),
    "backprop, subclass": Case(subclass(backprop=clipped_backprop), False, True),
    "backprop, instance": Case(on_instance(backprop=clipped_backprop), False, True),
    "backprop, class": Case(on_class(backprop=clipped_backprop), False, True),
    "backprop of another": Case(others_backprop, False, True),
    "update_mini_batch, subclass": Case(subclass(update_mini_batch=noisy_update), False, True),
    "update_mini_batch, instance": Case(on_instance(update_mini_batch=noisy_update), False, True),
    "update_mini_batch, class": Case(on_class(update_mini_batch=noisy_update), False, True),
    "feedforward, subclass": Case(subclass(feedforward=turned_feedforward), True, False),
    "feedforward, instance": Case(on_instance(feedforward=turned_feedforward), True, False),
    "feedforward, class": Case(on_class(feedforward=turned_feedforward), True, False),
    "evaluate, subclass": Case(subclass(evaluate=counting), True, False, ONE),
    "evaluate, instance": Case(on_instance(evaluate=counting), True, False, ONE),
    "evaluate, class": Case(on_class(evaluate=counting), True, False, ONE),
    "evaluate that changes samples": Case(subclass(evaluate=growing), True, True, ONE),
    "accuracy, subclass": Case(subclass(accuracy=counting), True, True, TWO),
    "accuracy, instance": Case(on_instance(accuracy=counting), True, True, TWO),
    "accuracy that changes samples": Case(subclass(accuracy=growing), True, True, TWO),
    "total_cost, subclass": Case(subclass(total_cost=counting), True, True, TWO),
    "total_cost, instance": Case(on_instance(total_cost=counting), True, True, TWO),
    "sigmoid": Case(in_module(sigmoid=wide, sigmoid_prime=wide_prime), False, False),
    "sigmoid alone": Case(in_module(sigmoid=wide), False, False),
    "sigmoid_prime alone": Case(in_module(sigmoid_prime=wide_prime), False, False),
    "vectorized_result": Case(in_module(vectorized_result=shifted), False, False, TWO),
    "cost: delta, subclass": Case(with_cost(sharper), False, True, TWO),
    "cost: delta, instance": Case(with_cost(on_its_instance), False, True, TWO),
    "cost: delta, class": Case(patched_cost, False, True, TWO),
    "cost: fn, subclass": Case(with_cost(measured), True, True, TWO),
    "cost: an object of its own": Case(with_cost(reading_itself), False, True, TWO),
    "cost: the quadratic": Case(with_cost(lambda module: module.QuadraticCost), True, True, TWO),
    "cost: an instance of the quadratic": Case(with_cost(lambda module: module.QuadraticCost()), True, True, TWO),
    "cost: an instance of the cross-entropy": Case(
        with_cost(lambda module: module.CrossEntropyCost()), True, True, TWO
    ),
}
BOTH = [(name, which) for name, case in CASES.items() for which in case.modules]


def options(which):
    if which == "network":
        return {"test_data": labelled()}
    monitors = ("evaluation_cost", "evaluation_accuracy", "training_cost", "training_accuracy")
    return {"lmbda": 0.5, "evaluation_data": labelled(), **{f"monitor_{name}": True for name in monitors}}


@pytest.mark.parametrize(("name", "which"), BOTH, ids=[f"{which}: {name}" for name, which in BOTH])
@pytest.mark.parametrize("watched", [True, False], ids=["watched", "alone"])
def test_override(name, which, watched, monkeypatch):
    case = CASES[name]
    spy = Spy(monkeypatch)
    results = []
    for module in PAIRS[which]:
        seed()
        net = case.apply(module, monkeypatch)
        seed(7)
        monitored, printed = captured(net.SGD, pairs(), EPOCHS, 8, 1.0, **(options(which) if watched else {}))
        results.append((net, monitored, printed))
    (ours, our_values, our_print), (theirs, their_values, their_print) = results
    trained, evaluated = spy.minibatches, spy.evaluated
    if case.trains:
        assert_close(ours, theirs)
        assert trained == EPOCHS * 5
    else:
        assert_same_bits(ours, theirs)
        assert trained == 0
    assert (evaluated > 0) is (watched and case.evaluates)
    lines = zip(our_print.splitlines(), their_print.splitlines(), strict=True)
    assert all(a == b for a, b in lines if "Cost" not in a)
    if which == "network2":
        for got, wanted in zip(our_values, their_values, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-9)


@pytest.mark.parametrize("module", [network, network2])
def test_every_method_that_the_book_calls_is_watched(module):
    """A public method of the networks is overridden in some case, or is not called by SGD."""
    public = {name for cls in module.Network.__mro__ for name in vars(cls) if not name.startswith("_")}
    fields = {"num_layers", "sizes", "weights", "biases"}
    not_called = {"SGD", "save", "default_weight_initializer", "large_weight_initializer"}
    which = module.__name__.rpartition(".")[2]
    changed = {name.split(",")[0] for name, case in CASES.items() if which in case.modules}
    assert public - fields - not_called <= changed


@pytest.mark.parametrize("which", PAIRS)
def test_an_override_that_comes_and_goes(which, monkeypatch):
    """What counts is what stands there at each epoch: the second is overridden, the first and the third are not."""
    spy = Spy(monkeypatch)
    nets = []
    for module in PAIRS[which]:
        seed()
        net = module.Network([7, 5, 10])
        looks = []

        def feedforward(a, net=net, module=module, looks=looks):
            looks.append(1)
            if len(looks) == 1:
                net.backprop = types.MethodType(clipped_backprop(module, module.Network), net)
            elif len(looks) == 31:
                del net.backprop
            return module.Network.feedforward(net, a)

        net.feedforward = feedforward
        captured(net.SGD, pairs(), 3, 8, 1.0, **(options(which) if which == "network" else monitored_accuracy()))
        nets.append(net)
    assert_close(*nets)
    assert spy.minibatches == 2 * 5


def monitored_accuracy():
    return {"evaluation_data": labelled(15), "monitor_evaluation_accuracy": True}


@pytest.mark.parametrize("which", PAIRS)
def test_weight_initializer(which):
    """The constructor of network2 calls what a subclass says, and each initializer only itself."""
    nets = []
    for module in PAIRS[which]:
        seed()

        class Own(module.Network):
            def default_weight_initializer(self):
                self.weights, self.biases = [np.ones((10, 7))], [np.zeros((10, 1))]

            def large_weight_initializer(self):
                raise AssertionError

        class Large(module.Network):
            def large_weight_initializer(self):
                raise AssertionError

        nets.append((Own([7, 10]), Large([7, 5, 10])))
    for ours, theirs in zip(*nets, strict=True):
        assert_same_bits(ours, theirs)


@pytest.mark.parametrize("which", PAIRS)
def test_a_shuffle_of_the_users(which, monkeypatch):
    """random.shuffle may be replaced: it gets the list itself, and may do anything to it."""
    spy = Spy(monkeypatch)

    def sort(items):
        items.sort(key=lambda pair: pair[0][0, 0])
        items[0][0][:] += 0.25

    monkeypatch.setattr(random, "shuffle", sort)
    nets = []
    for module in PAIRS[which]:
        seed()
        net = module.Network([7, 5, 10])
        captured(net.SGD, pairs(), 3, 8, 1.0)
        nets.append(net)
    assert_close(*nets)
    assert spy.minibatches == 15


def halve(data):
    for x, y in data:
        x *= 0.5
        y *= 0.75


def drop(data):
    del data[-5:]


def add(data):
    data += pairs(5, seed=9)


def replace(data):
    data[:] = pairs(40, seed=9)


@pytest.mark.parametrize("change", [halve, drop, add, replace])
@pytest.mark.parametrize("which", PAIRS)
def test_training_data_that_change_between_epochs(which, change):
    """An evaluation of the user's own has the training data in hand, too."""
    results = []
    for module in PAIRS[which]:
        seed()
        net, data = module.Network([7, 5, 10]), pairs()

        def measure(*args, data=data, **options):
            change(data)
            return 7

        net.evaluate = net.accuracy = measure
        seed()
        error = None
        try:
            captured(net.SGD, data, 3, 8, 1.0, **(options(which) if which == "network" else monitored_accuracy()))
        except ZeroDivisionError as raised:  # a mini-batch without samples
            error = str(raised)
        results.append((net, error))
    (ours, our_error), (theirs, their_error) = results
    assert_close(ours, theirs)
    assert our_error == their_error
    assert (our_error is not None) is (change is drop)


def test_a_cost_that_changes_targets():
    nets = []
    for module in PAIRS["network2"]:

        class Fading(module.CrossEntropyCost):
            @staticmethod
            def fn(a, y):
                y *= 0.9
                return np.sum(y)

        seed()
        net = module.Network([7, 5, 10], cost=Fading)
        captured(net.SGD, pairs(), 3, 8, 1.0, monitor_training_cost=True)
        nets.append(net)
    assert_close(*nets)


class Reverser(random.Random):
    def shuffle(self, items):
        items.reverse()
        items[3][0][:] *= 0.5


@pytest.mark.parametrize("which", PAIRS)
@pytest.mark.parametrize("generator", [random.Random, Reverser])
def test_a_generator_of_the_users(which, generator, monkeypatch):
    nets = []
    for module in PAIRS[which]:
        monkeypatch.setattr(module, "random", generator(3))
        seed()
        net = module.Network([7, 5, 10])
        before = random.getstate()
        captured(net.SGD, pairs(), 3, 8, 1.0)
        assert random.getstate() == before
        nets.append((net, module.random.getstate()))
    (ours, our_state), (theirs, their_state) = nets
    assert_close(ours, theirs)
    assert our_state == their_state
