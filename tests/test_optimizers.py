"""Optimizers: hyper-parameters that cannot change, the numbers of each step, and what they do to a weight."""

from __future__ import annotations

import dataclasses
import math
import pickle
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from fastbp import SGD, Adam, Network, reference
from fastbp.kernels.layers import BETA_1, BETA_2, EPSILON, ETA, MU, STEP_COLUMNS
from fastbp.kernels.updates import UPDATES
from fastbp.optimizers import optimizer_of

RULES = {
    "sgd": SGD(0.1),
    "momentum": SGD(0.1, 0.9),
    "nesterov": SGD(0.1, 0.9, nesterov=True),
    "adam": Adam(0.1, 0.8, 0.95, 1e-3),
}


def hyper(optimizer):
    """Return an optimizer's hyper-parameters under the reference's names."""
    return {name: getattr(optimizer, name) for name in reference.UPDATES[optimizer.update].hyper}


def test_defaults():
    assert SGD() == SGD(learning_rate=0.01, momentum=0.0, nesterov=False)
    assert Adam() == Adam(learning_rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-8)


@pytest.mark.parametrize("name", UPDATES)
def test_every_rule_has_its_optimizer(name):
    assert RULES[name].update == name


@pytest.mark.parametrize("optimizer", RULES.values(), ids=RULES)
def test_immutable_equal_hashable_and_repr(optimizer):
    for field in dataclasses.fields(optimizer):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(optimizer, field.name, 0.5)
    again = dataclasses.replace(optimizer)
    assert again == optimizer
    assert hash(again) == hash(optimizer)
    assert dataclasses.replace(optimizer, learning_rate=0.2) != optimizer
    assert eval(repr(optimizer), {"SGD": SGD, "Adam": Adam}) == optimizer
    assert pickle.loads(pickle.dumps(optimizer)) == optimizer


def test_names():
    assert optimizer_of("sgd") == SGD()
    assert optimizer_of("adam") == Adam()
    for optimizer in RULES.values():
        assert optimizer_of(optimizer) is optimizer


NUMBERS = [(int, 1), (float, 0.5), (np.float32, 0.5), (np.float64, 0.5), (np.int8, 1), (np.float16, 0.5)]


@pytest.mark.parametrize(("kind", "value"), NUMBERS, ids=[kind.__name__ for kind, _ in NUMBERS])
def test_numbers_of_any_kind(kind, value):
    assert SGD(kind(value)).learning_rate == value
    assert Adam(epsilon=kind(value)).epsilon == value


SMALL, BELOW_1 = 5e-324, math.nextafter(1, 0)
WITHIN = [
    (SGD, "learning_rate", SMALL),
    (SGD, "learning_rate", 1e308),
    (SGD, "momentum", 0),
    (SGD, "momentum", BELOW_1),
    (Adam, "beta_1", 0),
    (Adam, "beta_1", BELOW_1),
    (Adam, "beta_2", 0),
    (Adam, "beta_2", BELOW_1),
    (Adam, "epsilon", SMALL),
]
OUTSIDE = [
    (SGD, "learning_rate", 0),
    (SGD, "learning_rate", -1.0),
    (SGD, "learning_rate", math.inf),
    (SGD, "learning_rate", math.nan),
    (SGD, "learning_rate", 10**400),
    (SGD, "momentum", -SMALL),
    (SGD, "momentum", 1),
    (SGD, "momentum", math.nan),
    (Adam, "learning_rate", 0.0),
    (Adam, "learning_rate", -math.inf),
    (Adam, "beta_1", -0.1),
    (Adam, "beta_1", 1.0),
    (Adam, "beta_2", 1),
    (Adam, "beta_2", math.nan),
    (Adam, "epsilon", 0),
    (Adam, "epsilon", math.inf),
]
NO_NUMBERS = [True, np.True_, "0.1", None, 0.1j, [0.1], np.array([0.1]), Fraction(1, 10)]
FIELDS = [(SGD, "learning_rate"), (SGD, "momentum")]
FIELDS += [(Adam, "learning_rate"), (Adam, "beta_1"), (Adam, "beta_2"), (Adam, "epsilon")]


@pytest.mark.parametrize(("kind", "name", "value"), WITHIN)
def test_the_edges_are_allowed(kind, name, value):
    assert getattr(kind(**{name: value}), name) == value


@pytest.mark.parametrize(("kind", "name", "value"), OUTSIDE, ids=lambda value: f"{value!r:.12}")
def test_beyond_the_edges(kind, name, value):
    with pytest.raises(
        ValueError, match=rf"^{name} is .*, but must be (greater than|at least) 0 and less than (1|inf)"
    ):
        kind(**{name: value})


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_no_numbers(kind, name, value):
    with pytest.raises(TypeError, match=rf"^{name} is .*, but must be a number"):
        kind(**{name: value})


@pytest.mark.parametrize("value", [1, 0, "yes", None])
def test_nesterov_is_a_truth(value):
    with pytest.raises(TypeError, match=r"^nesterov is .*, but must be True or False"):
        SGD(momentum=0.9, nesterov=value)


def test_nesterov_needs_a_momentum():
    with pytest.raises(ValueError, match=r"nesterov is True, but momentum is 0: give a momentum such as 0\.9"):
        SGD(nesterov=True)
    assert SGD(momentum=0.5, nesterov=np.True_).update == "nesterov"


@pytest.mark.parametrize("optimizer", [*RULES.values(), SGD(), Adam()], ids=repr)
def test_steps_do_not_depend_on_where_they_are_cut(optimizer):
    rates = np.linspace(0.1, 0.2, 300)
    whole = optimizer.steps(0, rates)
    assert whole.shape == (300, STEP_COLUMNS)
    assert whole.dtype == np.float64
    for first, count in [(0, 1), (1, 7), (150, 150), (299, 1), (300, 0)]:
        cut = slice(first, first + count)
        np.testing.assert_array_equal(optimizer.steps(first, rates[cut]), whole[cut])


def test_steps_of_sgd():
    steps = SGD(0.25, 0.5).steps(10, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(steps[:, [ETA, MU]], [[1.0, 0.5], [2.0, 0.5], [3.0, 0.5]])


@pytest.mark.parametrize("beta_2", [0.0, 0.5, 0.999, 1 - 1e-7])
@pytest.mark.parametrize("beta_1", [0.0, 0.9, 0.99999])
def test_steps_of_adam_hold_both_bias_corrections(beta_1, beta_2):
    """eta_t = eta sqrt(1 - beta_2^t) / (1 - beta_1^t) and epsilon_t = epsilon sqrt(1 - beta_2^t), in 50 digits."""
    optimizer = Adam(0.01, beta_1, beta_2, 1e-6)
    for t in (1, 2, 10, 1000, 10**6):
        row = optimizer.steps(t - 1, np.array([0.01]))[0]
        with mpmath.workdps(50):
            correction = mpmath.sqrt(1 - mpmath.mpf(beta_2) ** t)
            eta = mpmath.mpf(0.01) * correction / (1 - mpmath.mpf(beta_1) ** t)
            epsilon = mpmath.mpf(1e-6) * correction
            # float64 knows 1 - beta^t to an ulp of 1, relative to itself that is 2^-52 / (1 - beta^t)
            slack = 4 * 2.0**-52 * (1 + 1 / (1 - mpmath.mpf(beta_1) ** t) + 1 / (1 - mpmath.mpf(beta_2) ** t))
            assert abs(row[ETA] / eta - 1) <= slack
            assert abs(row[EPSILON] / epsilon - 1) <= slack
        assert (row[BETA_1], row[BETA_2]) == (beta_1, beta_2)


def test_adam_goes_on_after_very_many_steps():
    eta, epsilon = Adam(0.01, epsilon=1e-6).steps(10**15, np.array([0.01]))[0, [ETA, EPSILON]]
    assert (eta, epsilon) == (0.01, 1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", RULES.values(), ids=RULES)
def test_a_few_steps_of_a_line(optimizer, dtype):
    """One weight and one bias, followed through the textbook's rule in float64."""
    X, y = np.array([[-1.0], [0.5], [2.0]]), np.array([-3.0, 0.25, 2.5])
    network = Network([1, 1], output="identity", init=[([[0.5]], [-0.25])], dtype=dtype)
    w, b, _ = reference.train(
        [np.array([[0.5]])], [np.array([-0.25])], ("identity",), "quadratic", X, y[:, None],
        update=optimizer.update, hyper=hyper(optimizer), batches=10 * reference.minibatches(3, 2),
    )  # fmt: skip
    network.fit(X, y, epochs=10, batch_size=2, optimizer=optimizer, shuffle=False, verbose=False)
    # 20 steps, each a dozen roundings of numbers up to 4; what is wrong with a velocity moves w ten times as far
    bound = 20 * 12 * 4 * 10 * np.finfo(dtype).eps
    assert abs(network.weights[0][0, 0] - w[0][0, 0]) <= bound
    assert abs(network.biases[0][0] - b[0][0]) <= bound
    assert abs(w[0][0, 0] - 0.5) > 0.1, "it moved"


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_name_stands_for_the_defaults(name):
    X, y = np.eye(3), [0, 1, 2]
    one, other = (Network([3, 3], output="softmax", seed=1) for _ in range(2))
    one.fit(X, y, epochs=3, optimizer=name)
    other.fit(X, y, epochs=3, optimizer=optimizer_of(name))
    np.testing.assert_array_equal(one.weights[0], other.weights[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adam_is_at_rest_where_the_gradient_is_zero(dtype):
    network = Network([2, 1], output="identity", init=[([[1.0, 2.0]], [0.5])], dtype=dtype)
    X = np.array([[1.0, 0.0], [0.0, 1.0]])
    network.fit(X, network.predict(X), epochs=100, optimizer=Adam(), verbose=False)
    np.testing.assert_array_equal(network.weights[0], [[1.0, 2.0]])
    np.testing.assert_array_equal(network.biases[0], [0.5])
