"""L-BFGS: iterations beside SciPy's on the reference, and that it is a training like any other."""

from __future__ import annotations

import math
import pickle
import sys

import numpy as np
import pytest
from problems import draw

import fastbp.engine.run
from fastbp import LBFGS, SGD, Callback, EarlyStopping, Network, lbfgs
from fastbp.engine.run import Run
from fastbp.reference import epochs as reference
from fastbp.reference import matrix

RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, (60, 5))
Y = RNG.integers(0, 3, 60)


def make(dtype="float64", **options):
    return Network([5, 6, 3], hidden="tanh", output="softmax", seed=3, dtype=dtype, **options)


def fit(network, iterations=10, **options):
    options = {"optimizer": LBFGS(iterations, tolerance=0.0), "verbose": False, **options}
    return network.fit(X, Y, **options)


def bits(network):
    return b"".join(array.tobytes() for array in (*network.weights, *network.biases))


HEADS = [("softmax", "cross_entropy"), ("sigmoid", "cross_entropy"), ("identity", "quadratic"), ("tanh", "mse")]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("head", HEADS, ids="-".join)
def test_ten_iterations_are_those_of_the_reference(head, bias):
    """Within 1e-6 of a layer's largest weight: what scikit-learn's drop-in must hold, and SciPy amplifies roundings."""
    problem = draw(np.random.default_rng(5), [5, 7, 3], 40, hidden="tanh", head=head, dtype="float64", bias=bias)
    network = problem.network()
    history = network.fit(problem.X, problem.y, optimizer=LBFGS(10, tolerance=0.0), verbose=False)
    weights, biases, activations = problem.wide()
    w, b, losses = reference.lbfgs(weights, biases, activations, problem.loss, problem.X, problem.Y, iterations=10)
    assert history.epochs == 10
    np.testing.assert_allclose(history.loss, losses, rtol=1e-8)
    for got, wanted in zip(network.weights, w, strict=True):
        assert np.abs(got - wanted).max() <= 1e-6 * np.abs(wanted).max()
    for got, wanted in zip(network.biases, b, strict=True):
        if wanted is None:
            assert not got.any()
        else:
            assert np.abs(got - wanted).max() <= 1e-6 * max(np.abs(w).max() for w in network.weights)


def test_biases_that_are_fixed_stay():
    network = make(bias="fixed")
    network.set_layer(0, biases=np.arange(6.0))
    before = [b.copy() for b in network.biases]
    history = fit(network)
    assert history.loss[-1] < history.loss[0]
    for b, was in zip(network.biases, before, strict=True):
        np.testing.assert_array_equal(b, was)


@pytest.mark.parametrize("m", [1, 60, 3000], ids=["one sample", "few", "several slabs"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_objective(dtype, m):
    """Loss and gradient are those of the network, to rounding of their sum with the penalty."""
    problem = draw(np.random.default_rng(6), [5, 7, 3], m, hidden="tanh", dtype=dtype)
    network = problem.network()
    run = Run(network.architecture, network.weights, network.biases, problem.X, problem.y, batch_size=m, update=None)
    objective = lbfgs.Objective(run, np.arange(m), penalty=0.5)
    x = objective.start()
    assert x.dtype == np.float64
    for w, again in zip(network.weights, objective.unpack(x)[0], strict=True):
        assert w.tobytes() == again.tobytes()
    loss, gradient = objective(x)
    squares = sum(float((w.astype(float) ** 2).sum()) for w in network.weights)
    eps = np.finfo(float).eps
    assert loss == pytest.approx(network.loss(problem.X, problem.y) + 0.25 * squares, rel=(m + 100) * eps)
    dw, db = network.gradients(problem.X, problem.y)
    expected = objective.pack(dw, db) + objective.pack([0.5 * w for w in network.weights], [0 * b for b in db])
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=4 * eps * np.abs(expected).max())
    other = RNG.standard_normal(len(x)).astype(dtype).astype(float)
    objective.load(other)
    assert objective.start().tobytes() == other.tobytes()


def test_the_penalty_is_that_of_the_reference():
    problem = draw(np.random.default_rng(7), [5, 7, 3], 40, hidden="tanh", head=HEADS[0], dtype="float64")
    run = Run(
        problem.network().architecture, problem.weights, problem.biases, problem.X, problem.y, batch_size=40,
        update=None,
    )  # fmt: skip
    objective = lbfgs.Objective(run, np.arange(40), penalty=0.01)
    result = lbfgs.minimize(objective, objective.start(), maxiter=10, gtol=0.0, ftol=0.0)
    weights, biases, activations = problem.wide()
    w, _, losses = reference.lbfgs(
        weights, biases, activations, problem.loss, problem.X, problem.Y, iterations=10, penalty=0.01
    )
    assert result.nit == 10
    assert result.fun == pytest.approx(losses[-1], rel=1e-8)
    for got, wanted in zip(objective.unpack(result.x)[0], w, strict=True):
        assert np.abs(got - wanted).max() <= 1e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_do_not_depend_on_threads(dtype):
    results = []
    for n_threads in 1, 2, 3:
        network = make(dtype)
        history = fit(network, n_threads=n_threads)
        results.append((bits(network), history.loss))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_converges(dtype):
    """A line through points on it: the least loss is 0 but for rounding, and SciPy says why it ends."""
    network = Network([1, 1], output="identity", seed=0, dtype=dtype)
    inputs = np.linspace(-1, 1, 50)[:, None]
    history = network.fit(inputs, 3 * inputs[:, 0] - 1, optimizer="lbfgs", verbose=False)
    assert "CONVERGENCE" in history.message
    assert abs(network.weights[0][0, 0] - 3) < 1e-3
    assert abs(network.biases[0][0] + 1) < 1e-3
    assert history.epochs < 20


def test_the_history():
    network = make()
    history = fit(network, 7, validation_data=(X[:9], Y[:9]))
    assert history.epochs == len(history.accuracy) == len(history.validation_loss) == len(history.seconds) == 7
    assert history.learning_rate == []
    assert "ITERATIONS" in history.message
    assert history.loss[-1] == pytest.approx(network.loss(X, Y), rel=1e-14)
    assert history.accuracy[-1] == network.accuracy(X, Y)
    assert history.validation_loss[-1] == network.loss(X[:9], Y[:9])
    assert sorted(history.loss, reverse=True) == history.loss


def test_evaluations_are_limited():
    history = fit(make(), optimizer=LBFGS(1000, 5, 0.0))
    assert 1 <= history.epochs <= 6
    assert "EVALUATIONS" in history.message


def test_samples_held_out_do_not_count():
    network, other = make(), make()
    history = fit(network, validation_fraction=0.25)
    drawn = other._rng.permutation(60)
    chosen, held_out = np.sort(drawn[15:]), np.sort(drawn[:15])
    expected = other.fit(X[chosen], Y[chosen], optimizer=LBFGS(10, tolerance=0.0), verbose=False)
    assert history.loss == expected.loss
    assert bits(network) == bits(other)
    assert history.validation_loss[-1] == network.loss(X[held_out], Y[held_out])


def test_callbacks_see_each_iteration_and_stop():
    network, seen = make(), []

    class Look(Callback):
        def on_epoch_end(self, state):
            assert state.loss == state.history.loss[-1]
            assert state.network.loss(X, Y) == pytest.approx(state.loss, rel=1e-14)
            seen.append(bits(state.network))
            state.stop = state.history.epochs == 4

    history = fit(network, callbacks=[Look()])
    assert history.epochs == len(seen) == 4
    assert len(set(seen)) == 4
    assert bits(network) == seen[-1]
    assert "callback" in history.message
    other = make()
    fit(other, 4)
    assert bits(other) == seen[-1]


def test_early_stopping_restores_the_best():
    network, other = make(), make()
    stopping = EarlyStopping(patience=3)
    options = {"validation_data": (RNG.uniform(-1, 1, (30, 5)), RNG.integers(0, 3, 30))}
    history = fit(network, 200, callbacks=[stopping], **options)
    assert stopping.stopped
    assert stopping.best_epoch == int(np.argmin(history.validation_loss))
    fit(other, stopping.best_epoch + 1)
    assert bits(network) == bits(other)


@pytest.mark.parametrize("after", [0, 3])
def test_an_interrupt_leaves_the_last_iterate(after, monkeypatch):
    network, expected = make(), make()
    run_team = fastbp.engine.run.run_team
    seen = []

    class Look(Callback):
        def on_epoch_end(self, state):
            seen.append(state.history.epochs)

    def interrupted(task, n_workers, **options):
        if len(seen) == after:
            raise KeyboardInterrupt
        return run_team(task, n_workers, **options)

    with monkeypatch.context() as patch:
        patch.setattr(fastbp.engine.run, "WORK_IN_CALLER", 0)
        patch.setattr(fastbp.engine.run, "run_team", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(network, callbacks=[Look()])
    if after:
        fit(expected, after)
    assert bits(network) == bits(expected)
    fit(network)


@pytest.mark.parametrize("fails", [False, True])
def test_blas_has_one_thread_while_it_searches(fails):
    """Its threads would wait in a loop, on the cores that the objective needs."""
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def threads():
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]

    class Look(Callback):
        def on_epoch_end(self, state):
            seen.append(threads())
            if fails:
                raise KeyError("a callback's own")

    problem, seen = draw(np.random.default_rng(61), [5, 4, 3], 20), []
    lbfgs.scipy_optimize()
    before = threads()
    network = problem.network()
    try:
        network.fit(problem.X, problem.y, optimizer=LBFGS(max_iterations=3), callbacks=[Look()], verbose=False)
    except KeyError:
        assert fails
    assert len(seen) == (1 if fails else 3)
    assert all(set(pools) == {1} for pools in seen)
    assert threads() == before


def test_the_gradient_is_asked_for_where_the_loss_was():
    """It is not computed twice, and the bits are those of SciPy with loss and gradient from one function."""

    def rosenbrock(x):
        places.append(x.copy())
        return optimize.rosen(x), optimize.rosen_der(x)

    optimize = lbfgs.scipy_optimize()
    start, places = np.array([-1.2, 1.0, 0.5]), []
    result = lbfgs.minimize(rosenbrock, start, maxiter=15)
    ours, places = places, []
    expected = optimize.minimize(rosenbrock, start, method="L-BFGS-B", jac=True, options={"maxiter": 15})
    assert result.nfev == len(ours) > 15
    assert [x.tobytes() for x in (result.x, *ours)] == [x.tobytes() for x in (expected.x, *places)]


def test_without_threadpoolctl_blas_is_left_as_it_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert lbfgs.minimize(lambda x: (float(x @ x), 2 * x), np.array([3.0, -4.0])).fun < 1e-9


def test_a_loss_that_is_lost():
    """The first evaluation, and a later one: the weights are those of the last iteration."""
    network = Network([1, 1], output="identity", init=[([[3e38]], [0.0])])
    before = bits(network)
    with pytest.raises(FloatingPointError, match=r"the loss became (inf|nan).* at evaluation 1 of L-BFGS"):
        network.fit([[1e10]], [0.0], optimizer="lbfgs", verbose=False)
    assert bits(network) == before

    class Spoil(Callback):
        def on_epoch_end(self, state):
            if state.history.epochs == 3:
                inputs[:] = math.inf

    inputs = X.copy()
    network, expected = make(), make()
    with pytest.raises(FloatingPointError, match="the loss became nan"):
        network.fit(inputs, Y, optimizer=LBFGS(10, tolerance=0.0), callbacks=[Spoil()], verbose=False)
    fit(expected, 3)
    assert bits(network) == bits(expected)


def test_what_comes_after_starts_the_optimizer_anew():
    network, other = make(), make()
    network.fit(X, Y, epochs=2, verbose=False)
    fit(network)
    other.weights, other.biases = network.weights, network.biases
    for each in (network, other):
        each.partial_fit(X, Y, optimizer=SGD(0.1, 0.9), shuffle=False)
    assert bits(network) == bits(other)


def test_it_goes_on_from_the_present_weights():
    network = make()
    first = fit(network)
    assert fit(network).loss[0] < first.loss[-1]


REFUSED = [
    ({"epochs": 50, "optimizer": "lbfgs"}, r"epochs is 50.*optimizer=LBFGS\(max_iterations=50\)"),
    ({"epochs": 0, "optimizer": "lbfgs"}, r"epochs is 0.*optimizer=LBFGS\(max_iterations=1\)"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_epochs_are_iterations(options, message):
    with pytest.raises(ValueError, match=message):
        make().fit(X, Y, **options)


def test_partial_fit_is_refused():
    with pytest.raises(ValueError, match="takes all samples at once and does not continue: use fit"):
        make().partial_fit(X, Y, optimizer=LBFGS())


@pytest.mark.parametrize("name", ["max_iterations", "max_evaluations", "memory"])
def test_outside_the_domain(name):
    with pytest.raises(ValueError, match=f"{name} is 0, but must be at least 1"):
        LBFGS(**{name: 0})
    with pytest.raises(TypeError, match=f"{name} is 1.5"):
        LBFGS(**{name: 1.5})


def test_a_wrong_tolerance():
    with pytest.raises(ValueError, match="tolerance is -1"):
        LBFGS(tolerance=-1)


def test_without_scipy_the_error_names_the_extra(monkeypatch):
    network = make()
    network.partial_fit(X, Y)
    before = pickle.dumps(network)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r"L-BFGS needs SciPy.*fastbp\[sklearn\]"):
        fit(network)
    assert pickle.dumps(network) == before
    network.fit(X, Y, verbose=False)


def test_the_reference_minimizes():
    problem = draw(np.random.default_rng(8), [5, 7, 3], 40, hidden="tanh", head=HEADS[0], dtype="float64")
    weights, biases, losses = reference.lbfgs(*problem.wide(), problem.loss, problem.X, problem.Y, iterations=30)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == matrix.loss(weights, biases, problem.activations, problem.loss, problem.X, problem.Y)
