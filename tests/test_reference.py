"""The reference against what is independent of it: finite differences, closed forms, published numbers, and itself."""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numeric import numerical_gradients
from numpy.typing import NDArray

from fastbp.reference import ACTIVATIONS, LOSSES, UPDATES, Optimizer, component, matrix, minibatches, one_hot, train

HIDDEN = [name for name in ACTIVATIONS if name not in ("softmax", "exp")]
OUTPUTS = [
    *((output, loss) for output in HIDDEN for loss in ("quadratic", "mse")),
    ("sigmoid", "cross_entropy"),
    ("softmax", "cross_entropy"),
    ("exp", "poisson"),
]
SIZES = [(3, 2), (1, 1, 1), (4, 5, 3), (2, 7, 1, 4, 2)]
FORMS = pytest.mark.parametrize("form", [component, matrix], ids=["component", "matrix"])


def a_problem(sizes: tuple[int, ...], output: str, loss: str, m: int = 5, dtype: Any = np.float64) -> tuple[Any, ...]:
    """Return weights, biases (none in the second layer), samples and targets that suit the loss, all read-only."""
    rng = np.random.default_rng([m, *sizes])
    weights = [rng.standard_normal((n_out, n_in)).astype(dtype) for n_in, n_out in pairwise(sizes)]
    biases = [None if l == 1 else rng.standard_normal(len(w)).astype(dtype) for l, w in enumerate(weights)]
    X = rng.standard_normal((m, sizes[0])).astype(dtype)
    Y = (
        rng.random((m, sizes[-1])).astype(dtype)
        if loss in ("cross_entropy", "poisson")
        else rng.standard_normal((m, sizes[-1])).astype(dtype)
    )
    if output == "softmax":
        Y /= Y.sum(axis=1, keepdims=True)
    for array in (*weights, *biases, X, Y):
        if array is not None:
            array.flags.writeable = False
    return weights, biases, X, Y


def present(arrays: list[NDArray[Any] | None]) -> list[NDArray[Any]]:
    return [array for array in arrays if array is not None]


def assert_all_close(actual: list[Any], expected: list[Any], rtol: float = 1e-12, atol: float = 1e-12) -> None:
    assert [a is None for a in actual] == [e is None for e in expected]
    for a, e in zip(present(actual), present(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=rtol, atol=atol)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(("output", "loss"), OUTPUTS)
@pytest.mark.parametrize("hidden", HIDDEN)
class TestForms:
    def test_component_and_matrix_agree(self, hidden: str, output: str, loss: str, sizes: tuple[int, ...]) -> None:
        weights, biases, X, Y = a_problem(sizes, output, loss)
        network = weights, biases, (hidden,) * (len(sizes) - 2) + (output,)
        for ours, theirs in zip(component.forward(*network, X), matrix.forward(*network, X), strict=True):
            assert_all_close(ours, theirs)
        np.testing.assert_allclose(component.predict(*network, X), matrix.predict(*network, X), rtol=1e-12)
        assert component.loss(*network, loss, X, Y) == pytest.approx(matrix.loss(*network, loss, X, Y), rel=1e-12)
        cost, dw, db = component.loss_and_gradients(*network, loss, X, Y)
        expected_cost, expected_dw, expected_db = matrix.loss_and_gradients(*network, loss, X, Y)
        assert cost == pytest.approx(expected_cost, rel=1e-12)
        assert_all_close(dw, expected_dw)
        assert_all_close(db, expected_db)

    def test_gradients_are_finite_differences(
        self, hidden: str, output: str, loss: str, sizes: tuple[int, ...]
    ) -> None:
        weights, biases, X, Y = a_problem(sizes, output, loss, m=2)
        activations = (hidden,) * (len(sizes) - 2) + (output,)

        def cost(parameters: list[NDArray[Any]]) -> float:
            rest = iter(parameters[len(weights) :])
            moved = [None if b is None else next(rest) for b in biases]
            return matrix.loss(parameters[: len(weights)], moved, activations, loss, X, Y)

        dw, db = matrix.gradients(weights, biases, activations, loss, X, Y)
        expected = numerical_gradients(cost, [*weights, *present(biases)])
        assert_all_close([*dw, *present(db)], expected, rtol=1e-7, atol=1e-8)


@FORMS
@pytest.mark.parametrize(("output", "loss"), OUTPUTS)
def test_float32_stays_float32(form: ModuleType, output: str, loss: str) -> None:
    # not 5 neurons: OpenBLAS multiplies rows of 5 float32 with what lies on its stack, too, and may raise a flag for it
    weights, biases, X, Y = a_problem((4, 8, 3), output, loss, dtype=np.float32)
    for hidden in HIDDEN:
        network = weights, biases, (hidden, output)
        zs, a = form.forward(*network, X.astype(np.float64))
        dw, db = form.gradients(*network, loss, X, Y.astype(np.float64))
        for update in UPDATES:
            w, b, losses = train(*network, loss, X, Y, update=update, batches=minibatches(5, 2))
            assert {array.dtype for array in [*zs, *a, *dw, *w, *present([*db, *b])]} == {np.dtype(np.float32)}
            assert losses.dtype == np.float64


@FORMS
def test_the_published_worked_example(form: ModuleType) -> None:
    """M. Mazur, *A Step by Step Backpropagation Example*: 2-2-2, sigmoid, squared error, fixed biases."""
    weights = [np.array([[0.15, 0.20], [0.25, 0.30]]), np.array([[0.40, 0.45], [0.50, 0.55]])]
    biases: list[NDArray[Any] | None] = [np.array([0.35, 0.35]), np.array([0.60, 0.60])]
    activations, X, Y = ("sigmoid", "sigmoid"), np.array([[0.05, 0.10]]), np.array([[0.01, 0.99]])

    def after(steps: int) -> Any:
        return train(
            weights, biases, activations, "quadratic", X, Y, hyper={"learning_rate": 0.5}, train_bias=False,
            batches=steps * minibatches(1, 1), form=form.__name__.rpartition(".")[2],
        )  # fmt: skip

    w, b, losses = after(2)
    np.testing.assert_allclose(losses, [0.298371109, 0.291027774], rtol=0, atol=5e-10)
    assert_all_close(b, biases, rtol=0, atol=0)
    w, _, _ = after(1)
    np.testing.assert_allclose(w[0].ravel(), [0.14978072, 0.19956143, 0.24975114, 0.29950229], rtol=0, atol=5e-9)
    np.testing.assert_allclose(w[1].ravel(), [0.35891648, 0.40866619, 0.51130127, 0.56137012], rtol=0, atol=5e-9)
    w, b, _ = after(10_000)
    assert form.loss(w, b, activations, "quadratic", X, Y) == pytest.approx(3.5102e-5, abs=5e-10)
    np.testing.assert_allclose(form.predict(w, b, activations, X), [[0.0159136, 0.9840643]], rtol=0, atol=5e-8)


def test_gradient_vanishes_at_least_squares() -> None:
    rng = np.random.default_rng(3)
    X, Y = rng.standard_normal((20, 3)), rng.standard_normal((20, 2))
    solution = np.linalg.lstsq(np.c_[X, np.ones(20)], Y, rcond=None)[0].T
    dw, db = matrix.gradients([solution[:, :3]], [solution[:, 3]], ("identity",), "mse", X, Y)
    assert_all_close([*dw, *db], [np.zeros((2, 3)), np.zeros(2)])


Z = np.array([[-3.0, 0.0, 2.5], [0.5, -0.0, 4.0]])


@pytest.mark.parametrize(
    ("name", "a", "prime"),
    [
        ("identity", Z, np.ones_like(Z)),
        ("sigmoid", np.exp(Z) / (1 + np.exp(Z)), 1 / (2 + np.exp(Z) + np.exp(-Z))),
        ("tanh", np.sinh(Z) / np.cosh(Z), np.cosh(Z) ** -2),
        ("relu", [[0, 0, 2.5], [0.5, 0, 4]], [[0, 0, 1], [1, 0, 1]]),
        ("exp", np.exp(Z), np.exp(Z)),
        ("softmax", np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True), None),
    ],
)
def test_activations(name: str, a: Any, prime: Any) -> None:
    actual = ACTIVATIONS[name].sigma(Z)
    np.testing.assert_allclose(actual, a, rtol=4e-15, atol=0)
    if prime is not None:  # from a, so as exact as a is: some roundings of 1
        np.testing.assert_allclose(ACTIVATIONS[name].sigma_prime(actual), prime, rtol=0, atol=1e-15)
    assert np.isnan(ACTIVATIONS[name].sigma(np.array([np.nan, 1.0]))[0]), "NaN stays NaN"


def test_losses() -> None:
    a, y = np.array([0.25, 0.5]), np.array([1.0, 0.0])
    z = np.log(a / (1 - a))
    assert LOSSES["quadratic"].cost(z, a, y, "identity") == 0.5 * (0.75**2 + 0.5**2)
    assert LOSSES["mse"].cost(z, a, y, "identity") == (0.75**2 + 0.5**2) / 2
    assert LOSSES["cross_entropy"].cost(z, a, y, "sigmoid") == pytest.approx(-np.log(0.25) - np.log(0.5), rel=1e-15)
    assert LOSSES["cross_entropy"].cost(np.log(a) + 7, a, y, "softmax") == pytest.approx(
        -np.log(0.25 / 0.75), rel=1e-15
    )
    y = np.array([3.0, 0.0])
    assert LOSSES["poisson"].cost(np.log(a), a, y, "exp") == pytest.approx(3 * np.log(12) - 3 + 0.75, rel=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("output", "loss", "expected"),
    [
        ("sigmoid", "cross_entropy", [2e38, 0.0]),
        ("softmax", "cross_entropy", [2e38, 0.0]),
        ("sigmoid", "quadratic", [1.0, 0.0]),
        ("tanh", "quadratic", [2.5, 0.5]),
        ("identity", "quadratic", [1e76, 1e76]),
    ],
)
def test_huge_logits(output: str, loss: str, expected: list[float], dtype: Any) -> None:
    """Logits of 1e38 give finite losses and gradients, and no warning: both are errors here."""
    w, b = [np.array([[1e38], [-1e38]], dtype)], [np.zeros(2, dtype)]
    for y, cost in zip(([0.0, 1.0], [1.0, 0.0]), expected, strict=True):
        for form in (component, matrix):
            value, dw, db = form.loss_and_gradients(w, b, (output,), loss, np.ones((1, 1), dtype), np.array([y], dtype))
            assert value == pytest.approx(cost, rel=1e-6)
            assert np.isfinite([*dw[0].ravel(), *db[0]]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_further_apart_than_the_largest_number(dtype: Any) -> None:
    """The class that is right costs nothing, however far the others are; and a is exact."""
    w, b = [np.array([[1], [-1], [0]], dtype) * np.finfo(dtype).max], [np.zeros(3, dtype)]
    X, y = np.ones((1, 1), dtype), np.array([[1, 0, 0]], dtype)
    for form in (component, matrix):
        value, dw, db = form.loss_and_gradients(w, b, ("softmax",), "cross_entropy", X, y)
        assert value == 0
        assert not any([*dw[0].ravel(), *db[0]])
        np.testing.assert_array_equal(form.forward(w, b, ("softmax",), X)[1][-1].ravel(), y[0])


@pytest.mark.parametrize(("z", "y"), [(40.0, 1.0), (-40.0, 0.0)])
def test_binary_cross_entropy_keeps_small_costs(z: float, y: float) -> None:
    """The cost is ln(1 + e^-40), though a rounds to y: neither 0 nor the rounding of 40."""
    cost = LOSSES["cross_entropy"].cost(np.array([z]), np.array([y]), np.array([y]), "sigmoid")
    np.testing.assert_allclose(cost, np.exp(-40), rtol=1e-14, atol=0)


def test_refuses_pairs_that_have_no_delta() -> None:
    weights, biases, X, Y = a_problem((4, 5, 3), "softmax", "cross_entropy")
    for form in (component, matrix):
        for hidden, output, loss in [("softmax", "softmax", "cross_entropy"), ("tanh", "softmax", "mse")]:
            with pytest.raises(ValueError, match="softmax has no derivative neuron by neuron"):
                form.gradients(weights, biases, (hidden, output), loss, X, Y)
        with pytest.raises(ValueError, match="cross_entropy needs a softmax or sigmoid output, not 'tanh'"):
            form.loss(weights, biases, ("tanh", "tanh"), "cross_entropy", X, Y)
        with pytest.raises(ValueError, match="poisson needs an exp output, not 'sigmoid'"):
            form.loss(weights, biases, ("tanh", "sigmoid"), "poisson", X, Y)
        for loss in "quadratic", "mse":
            with pytest.raises(ValueError, match="an exp output goes with the loss 'poisson' only"):
                form.loss(weights, biases, ("tanh", "exp"), loss, X, Y)
    for loss, output in ("cross_entropy", "relu"), ("poisson", "relu"), ("quadratic", "exp"), ("mse", "exp"):
        with pytest.raises(ValueError, match=output):
            LOSSES[loss].delta(Y, Y, output)


ETA, MU = 0.125, 0.75


@pytest.mark.parametrize(
    ("update", "recurrence"),
    [
        ("sgd", [[0, -ETA], [0, 1 - ETA]]),
        ("momentum", [[MU, -ETA], [MU, 1 - ETA]]),
        ("nesterov", [[MU, -ETA], [MU**2, 1 - ETA - MU * ETA]]),
    ],
)
def test_descent_on_a_parabola(update: str, recurrence: list[list[float]]) -> None:
    """On C = w^2/2 the gradient is w: (v, w) follows a linear recurrence, whose t-th power is known."""
    w = np.array([3.0])
    optimizer = Optimizer([w], update, {"learning_rate": ETA} | ({} if update == "sgd" else {"momentum": MU}))
    for _ in range(9):
        optimizer.step([w.copy()])
    v_and_w = np.linalg.matrix_power(np.array(recurrence), 9) @ [0.0, 3.0]
    np.testing.assert_allclose(w[0], v_and_w[1], rtol=1e-13)


def test_nesterov_is_momentum_with_the_gradient_ahead() -> None:
    """Sutskever's form: v = mu v - eta g(theta + mu v), theta = theta + v; ours holds w = theta + mu v."""
    theta, v, w = 2.0, 0.0, np.array([2.0])
    optimizer = Optimizer([w], "nesterov", {"learning_rate": ETA, "momentum": MU})
    for _ in range(7):
        optimizer.step([np.sin(w)])
        v = MU * v - ETA * np.sin(theta + MU * v)
        theta += v
    np.testing.assert_allclose(w[0], theta + MU * v, rtol=1e-14)


@pytest.mark.parametrize("g", [3.0, -1e-4, 1e-8, -1e-12])
def test_adam_under_a_constant_gradient(g: float) -> None:
    """Then m_hat = g and v_hat = g^2 at every t, so each step is eta g / (|g| + epsilon), epsilon not corrected."""
    w = np.array([1.0])
    optimizer = Optimizer([w], "adam", {"learning_rate": 0.5})
    for _ in range(20):
        optimizer.step([np.array([g])])
    np.testing.assert_allclose(w[0] - 1, -20 * 0.5 * g / (abs(g) + 1e-8), rtol=1e-11)


def test_adam_by_hand() -> None:
    """beta_1 = 1/2, beta_2 = 3/4, g = 4, -2, 6: m = 2, 0, 3, v = 4, 4, 12, and 1 - beta^3 = 7/8 and 37/64."""
    w = np.array([0.0])
    optimizer = Optimizer([w], "adam", {"learning_rate": 1.0, "beta_1": 0.5, "beta_2": 0.75, "epsilon": 1.0})
    seen = []
    for g in (4.0, -2.0, 6.0):
        optimizer.step([np.array([g])])
        seen.append(w[0])
    third = (3 / (7 / 8)) / (np.sqrt(12 / (37 / 64)) + 1)
    np.testing.assert_allclose(seen, [-0.8, -0.8, -0.8 - third], rtol=1e-15)


def test_minibatches_are_consecutive_slices_of_the_order() -> None:
    order = np.random.default_rng(0).permutation(10)
    batches = minibatches(10, 4, order)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(batches), order)
    np.testing.assert_array_equal(np.concatenate(minibatches(7, 3)), np.arange(7))
    assert [len(batch) for batch in minibatches(3, 100)] == [3]
    with pytest.raises(ValueError, match="batch_size is 0"):
        minibatches(3, 0)
    with pytest.raises(ValueError, match=r"order has shape \(2,\): give the 3 samples"):
        minibatches(3, 1, [0, 1])


@pytest.mark.parametrize("update", UPDATES)
def test_train_is_gradients_and_steps(update: str) -> None:
    """Both forms give what a loop by hand gives, over the short last batch and without a bias in one layer."""
    weights, biases, X, Y = a_problem((4, 5, 3), "softmax", "cross_entropy", m=7)
    network = ("tanh", "softmax"), "cross_entropy"
    batches = 3 * minibatches(7, 3, np.arange(7)[::-1])
    by_matrix = train(weights, biases, *network, X, Y, update=update, batches=batches)
    by_component = train(weights, biases, *network, X, Y, update=update, batches=batches, form="component")

    w, b = [array.copy() for array in weights], [None if array is None else array.copy() for array in biases]
    optimizer, losses = Optimizer([*w, *present(b)], update), []
    for batch in batches:
        losses.append(matrix.loss(w, b, *network, X[batch], Y[batch]))
        dw, db = matrix.gradients(w, b, *network, X[batch], Y[batch])
        optimizer.step([*dw, *present(db)])
    for result in (by_matrix, by_component):
        assert_all_close([*result[0], *result[1], result[2]], [*w, *b, np.array(losses)], rtol=1e-9)
    assert not np.allclose(w[0], weights[0], rtol=1e-6)


def test_train_accepts_slices_and_fixed_biases() -> None:
    weights, biases, X, Y = a_problem((4, 3), "sigmoid", "cross_entropy", m=6)
    network = weights, biases, ("sigmoid",), "cross_entropy", X, Y
    w, b, losses = train(*network, batches=[slice(0, 4), slice(4, 6)], train_bias=False)
    expected_w, _, expected_losses = train(*network, batches=minibatches(6, 4), train_bias=False)
    assert_all_close([*w, *b, losses], [*expected_w, *biases, expected_losses], rtol=0, atol=0)
    assert b[0] is not biases[0]


def test_errors_name_the_value_and_what_is_allowed() -> None:
    weights, biases, X, Y = a_problem((4, 3), "sigmoid", "cross_entropy")
    network = weights, biases, ("sigmoid",), "cross_entropy", X, Y
    with pytest.raises(ValueError, match="update 'rmsprop' is not one of sgd, momentum, nesterov, adam"):
        train(*network, update="rmsprop", batches=[])
    with pytest.raises(ValueError, match="'sgd' has no hyper-parameter 'momentum': it has learning_rate"):
        train(*network, hyper={"momentum": 0.9}, batches=[])
    with pytest.raises(ValueError, match="form 'tensor' is not one of component, matrix"):
        train(*network, form="tensor", batches=[])
    for label in (-1, 3):
        with pytest.raises(ValueError, match=rf"label {label} is not a class 0\.\.2"):
            one_hot([0, label], 3)
