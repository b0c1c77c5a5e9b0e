"""fastbp.nielsen.network2 beside the book's network2.py: costs, L2, monitoring, early stopping, files."""

from __future__ import annotations

import inspect
import json
import random

import numpy as np
import pytest
from book import network2 as book
from nielsen import Spy, assert_close, assert_same_bits, captured, labelled, pairs, seed, states

from fastbp.nielsen import mnist_loader, network2

MONITORS = ("evaluation_cost", "evaluation_accuracy", "training_cost", "training_accuracy")
ALL = {f"monitor_{name}": True for name in MONITORS}


def both(sizes, cost="CrossEntropyCost", large=False):
    """Return our network and the book's, from the same draws."""
    made = []
    for module in (network2, book):
        seed()
        net = module.Network(sizes, cost=getattr(module, cost))
        if large:
            net.large_weight_initializer()
        made.append(net)
    return made


def assert_trained_alike(sizes, data, *args, cost="CrossEntropyCost", large=False, **options):
    results = []
    for net in both(sizes, cost, large):
        listed = list(data)
        seed(5)
        monitored, printed = captured(net.SGD, listed, *args, **options)
        results.append((net, listed, monitored, printed, states()))
    ours, theirs = results
    assert all(a is b for a, b in zip(ours[1], theirs[1], strict=True))
    assert ours[4] == theirs[4]
    assert_close(ours[0], theirs[0])
    assert_monitored_alike(ours[2], theirs[2])
    assert_printed_alike(ours[3], theirs[3])
    return ours[0], ours[2]


def assert_monitored_alike(ours, theirs):
    assert type(ours) is tuple
    for name, got, wanted in zip(MONITORS, ours, theirs, strict=True):
        assert type(got) is list
        assert list(map(type, got)) == list(map(type, wanted))
        if name.endswith("accuracy"):
            assert got == wanted
        else:
            np.testing.assert_allclose(got, wanted, rtol=1e-10)


def assert_printed_alike(ours, theirs):
    """The same lines; costs may differ in their last digits."""
    for a, b in zip(ours.split("\n"), theirs.split("\n"), strict=True):
        if a.startswith("Cost"):
            (what, value), (wanted_what, wanted) = a.split(": "), b.split(": ")
            assert what == wanted_what
            assert float(value) == pytest.approx(float(wanted), rel=1e-10)
        else:
            assert a == b


@pytest.fixture
def spy(monkeypatch):
    return Spy(monkeypatch)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("sizes", [[7, 5, 10], (3, 2), [4, 6, 5, 3]])
def test_start(sizes, large):
    ours, theirs = both(sizes, large=large)
    after = states()
    assert vars(ours).keys() == vars(theirs).keys()
    assert ours.sizes is sizes
    assert ours.cost is network2.CrossEntropyCost
    assert_same_bits(ours, theirs)
    seed()
    network2.Network(sizes)
    if large:
        assert states() != after
    else:
        assert states() == after


PUBLIC = """__init__ default_weight_initializer large_weight_initializer feedforward update_mini_batch backprop accuracy
total_cost save""".split()


@pytest.mark.parametrize("name", PUBLIC)
def test_signature(name):
    ours, theirs = (
        [(p.name, p.default) for p in inspect.signature(getattr(module.Network, name)).parameters.values()]
        for module in (network2, book)
    )
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    assert [d for n, d in ours if n != "cost"] == [d for n, d in theirs if n != "cost"]


def test_signature_of_sgd():
    ours, theirs = (inspect.signature(module.Network.SGD).parameters for module in (network2, book))
    assert list(ours) == [*theirs, "early_stopping_n", "shuffle"]
    assert all(ours[name].default == theirs[name].default for name in theirs)
    assert ours["early_stopping_n"].default == 0


@pytest.mark.parametrize("cost", ["CrossEntropyCost", "QuadraticCost"])
@pytest.mark.parametrize("lmbda", [0.0, 5, 0.7])
@pytest.mark.parametrize(
    ("sizes", "mini_batch_size"), [([7, 5, 10], 8), ([7, 10], 7), ([7, 4, 3, 10], 40), ([7, 33, 10], 1)]
)
def test_learns_as_the_book(sizes, mini_batch_size, lmbda, cost, spy):
    options = {"lmbda": lmbda, "evaluation_data": labelled(), **ALL}
    assert_trained_alike(sizes, pairs(), 3, mini_batch_size, 0.5, cost=cost, **options)
    assert spy.minibatches == 3 * -(-40 // mini_batch_size)
    assert spy.evaluated == 3 * (30 + 40)


@pytest.mark.parametrize("lmbda", [np.float32(0.7), np.array([[0.7]])])
def test_lmbda_whose_arithmetic_is_not_float64(lmbda, spy):
    ours, theirs = both([7, 5, 10])
    for net in ours, theirs:
        seed()
        captured(net.SGD, pairs(), 2, 8, 0.5, lmbda)
    assert_same_bits(ours, theirs)
    assert spy.minibatches == 0


def test_biases_are_not_penalised():
    net = network2.Network([7, 5, 10])
    kept = [b.copy() for b in net.biases]
    captured(net.SGD, pairs(), 1, 10, 0.0, 5.0)
    for b, before in zip(net.biases, kept, strict=True):
        np.testing.assert_array_equal(b, before)


def test_costs_and_accuracies(spy):
    data, evaluation = pairs(60), labelled(60)
    for cost in "CrossEntropyCost", "QuadraticCost":
        for net_pair in (both([7, 5, 10], cost), both([7, 5, 10], cost, large=True)):
            ours, theirs = (
                [
                    net.total_cost(data, 0.0),
                    net.total_cost(data, 3.0),
                    net.total_cost(evaluation, 3, convert=True),
                    net.accuracy(evaluation),
                    net.accuracy(data, convert=True),
                    net.accuracy(data, True),
                ]
                for net in net_pair
            )
            np.testing.assert_allclose(ours, theirs, rtol=1e-13)
            assert list(map(type, ours)) == list(map(type, theirs))
    assert spy.evaluated == 4 * 6 * 60


def test_cost_of_a_saturated_output():
    """Where the book's logarithm is infinite, the cost is the largest float, and 0 times it is 0."""
    for y in np.array([[0.0]]), np.array([[1.0]]):
        for a in np.array([[0.0]]), np.array([[1.0]]):
            with np.errstate(divide="ignore", invalid="ignore"):
                assert network2.CrossEntropyCost.fn(a, y) == book.CrossEntropyCost.fn(a, y)
    ours, theirs = both([1, 1])
    for net in ours, theirs:
        net.weights, net.biases = [np.array([[1000.0]])], [np.array([[0.0]])]
    data = [(np.array([[1.0]]), np.array([[float(i % 2)]])) for i in range(20)]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        assert ours.total_cost(data, 0.0) == theirs.total_cost(data, 0.0) > 1e300


@pytest.mark.parametrize("labels", [[10] * 30, [-1] * 30, [-11] * 30, [3.0] * 30, [np.array([3])] * 30])
def test_labels_that_are_no_digits(labels):
    evaluation = [(x, label) for (x, _), label in zip(labelled(), labels, strict=True)]
    ours, theirs = both([7, 5, 10])
    outcomes = []
    for net in ours, theirs:
        try:
            outcomes.append(float(net.total_cost(evaluation, 0.1, convert=True)))
        except (IndexError, TypeError) as error:
            outcomes.append((type(error), str(error)))
    assert type(outcomes[0]) is type(outcomes[1])
    assert outcomes[0] == (outcomes[1] if isinstance(outcomes[1], tuple) else pytest.approx(outcomes[1], rel=1e-12))


def test_other_than_ten_outputs():
    """vectorized_result is a column of ten: with another number of outputs the book fails, or broadcasts."""
    ours, theirs = both([7, 5, 3])
    data = labelled(30, n_out=3)
    with pytest.raises(ValueError, match="broadcast"):
        theirs.total_cost(data, 0.1, convert=True)
    with pytest.raises(ValueError, match="broadcast"):
        ours.total_cost(data, 0.1, convert=True)
    ours, theirs = both([7, 5, 1])
    assert ours.total_cost(data, 0.1, convert=True) == theirs.total_cost(data, 0.1, convert=True)


@pytest.mark.parametrize("name", MONITORS)
def test_one_monitor(name):
    _, monitored = assert_trained_alike(
        [7, 5, 10], pairs(), 2, 10, 0.5, evaluation_data=labelled(), **{f"monitor_{name}": True}
    )
    assert [len(values) for values in monitored] == [2 * (name == other) for other in MONITORS]


def test_no_monitor():
    (_, monitored), printed = captured(
        assert_trained_alike, [7, 5, 10], pairs(), 2, 10, 0.5, evaluation_data=labelled()
    )
    assert monitored == ([], [], [], [])
    assert printed == ""
    assert captured(network2.Network([7, 10]).SGD, pairs(), 1, 10, 0.5)[1] == "Epoch 0 training complete\n\n"


def test_the_prints_of_an_epoch():
    _, printed = captured(
        network2.Network([7, 5, 10]).SGD, pairs(), 1, 10, 0.5, 0.0, labelled(), True, True, True, True
    )
    lines = printed.split("\n")
    starts = ["Epoch 0 training complete", "Cost on training data: 3.", "Accuracy on training data: "]
    starts += ["Cost on evaluation data: 3.", "Accuracy on evaluation data: ", "", ""]
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))
    assert lines[2].endswith(" / 40")
    assert lines[4].endswith(" / 30")


@pytest.mark.parametrize("form", [iter, tuple, lambda data: zip(*zip(*data, strict=True), strict=True)])
def test_iterables(form):
    ours, theirs = both([7, 5, 10])
    for net, wrap in (ours, form), (theirs, list):
        seed()
        monitored, _ = captured(net.SGD, wrap(pairs()), 2, 10, 0.5, evaluation_data=wrap(labelled()), **ALL)
        assert [len(values) for values in monitored] == [2] * 4
    assert_close(ours, theirs)
    assert ours.accuracy(form(labelled())) == theirs.accuracy(labelled())
    assert ours.total_cost(form(pairs()), 0.5) == pytest.approx(theirs.total_cost(pairs(), 0.5), rel=1e-12)


def test_the_same_list_to_train_and_to_evaluate():
    """Labels are missing then, so the accuracy is the book's comparison with columns, which fails there and here."""
    for net in both([7, 5, 10]):
        data = pairs()
        with pytest.raises(TypeError):
            captured(net.SGD, data, 1, 10, 0.5, evaluation_data=data, monitor_evaluation_accuracy=True)


# Early stopping, an addition of the ports


class Scripted(network2.Network):
    """Its accuracy comes from a list."""

    def accuracy(self, data, convert=False):
        if not convert:  # the book asks twice for the evaluation's accuracy
            self.asked = not getattr(self, "asked", False)
            return self.script[0] if self.asked else self.script.pop(0)
        return self.script.pop(0)


def stop_of_the_ports(accuracies, n):
    """Count epochs without a new best as DeepLearningPython does; return how many epochs run."""
    best, unchanged = 0, 0
    for epoch, accuracy in enumerate(accuracies):
        if accuracy > best:
            best, unchanged = accuracy, 0
        else:
            unchanged += 1
        if unchanged == n:
            return epoch + 1
    return len(accuracies)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("monitor", ["evaluation", "training"])
def test_early_stopping(n, monitor):
    rng = random.Random(n)
    for _ in range(20):
        script = [rng.choice([0, 1, 2, 3, 4, 5, 6, 7]) for _ in range(8)]
        net = Scripted([7, 10])
        net.script = list(script)
        options = {f"monitor_{monitor}_accuracy": True, "evaluation_data": labelled(9)}
        monitored, printed = captured(net.SGD, pairs(12), 8, 6, 0.1, early_stopping_n=n, **options)
        epochs = stop_of_the_ports(script, n)
        assert monitored[1 if monitor == "evaluation" else 3] == script[:epochs]
        assert printed.count("training complete") == epochs


def test_early_stopping_looks_at_the_evaluation_first():
    net = Scripted([7, 10])
    net.script = [5, 9, 6, 9, 7, 9]  # training 5, 6, 7 would go on; evaluation 9, 9, 9 stops
    options = {"monitor_evaluation_accuracy": True, "monitor_training_accuracy": True, "evaluation_data": labelled(9)}
    monitored, _ = captured(net.SGD, pairs(12), 3, 6, 0.1, early_stopping_n=1, **options)
    assert monitored == ([], [9, 9], [], [5, 6])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"early_stopping_n": 2}, "early_stopping_n is 2, but no accuracy is monitored"),
        ({"early_stopping_n": 2, "monitor_training_cost": True}, "no accuracy is monitored"),
        ({"monitor_evaluation_cost": True}, "evaluation_data is missing or empty"),
        ({"monitor_evaluation_accuracy": True, "evaluation_data": []}, "evaluation_data is missing or empty"),
        ({"shuffle": "book"}, "shuffle is 'book'"),
    ],
)
def test_bad_options(options, message):
    net = network2.Network([7, 10])
    data = pairs()
    before = list(map(id, data))
    with pytest.raises(ValueError, match=message):
        captured(net.SGD, data, 1, 10, 0.5, **options)
    assert list(map(id, data)) == before


# Files


def test_save_writes_the_books_bytes(tmp_path):
    for cost in "CrossEntropyCost", "QuadraticCost":
        ours, theirs = both((7, 5, 10), cost)
        ours.save(str(tmp_path / "ours.json"))
        theirs.save(tmp_path / "theirs.json")
        assert (tmp_path / "ours.json").read_bytes() == (tmp_path / "theirs.json").read_bytes()


@pytest.mark.parametrize("cost", ["CrossEntropyCost", "QuadraticCost"])
def test_load(tmp_path, cost):
    """Ours reads what the book wrote, and the other way round, with the same draws."""
    ours, _ = both([7, 5, 10], cost, large=True)
    captured(ours.SGD, pairs(), 1, 10, 0.5)
    ours.save(tmp_path / "net.json")
    seed()
    loaded = network2.load(str(tmp_path / "net.json"))
    after = states()
    seed()
    read_by_the_book = book.load(tmp_path / "net.json")
    assert states() == after
    assert loaded.cost is getattr(network2, cost)
    assert loaded.sizes == [7, 5, 10]
    assert_same_bits(loaded, ours)
    assert_same_bits(loaded, read_by_the_book)
    for net in loaded, read_by_the_book:
        seed()
        captured(net.SGD, pairs(), 1, 10, 0.5)
    assert_close(loaded, read_by_the_book)


def test_save_of_a_cost_instance(tmp_path):
    """The book fails here: an instance has no name; ours has its class's."""
    net = network2.Network([7, 10], cost=network2.QuadraticCost())
    net.save(tmp_path / "net.json")
    assert json.loads((tmp_path / "net.json").read_text())["cost"] == "QuadraticCost"
    assert network2.load(tmp_path / "net.json").cost is network2.QuadraticCost


def test_a_failing_save_keeps_the_old_file(tmp_path):
    net = network2.Network([np.int64(7), 10])
    (tmp_path / "net.json").write_text("old")
    with pytest.raises(TypeError):
        net.save(tmp_path / "net.json")
    assert (tmp_path / "net.json").read_text() == "old"


def test_load_of_an_unknown_cost(tmp_path, monkeypatch):
    net = network2.Network([7, 10])
    net.save(tmp_path / "net.json")
    text = (tmp_path / "net.json").read_text().replace("CrossEntropyCost", "MyCost")
    (tmp_path / "net.json").write_text(text)
    with pytest.raises(AttributeError, match="names the cost 'MyCost', which fastbp"):
        network2.load(tmp_path / "net.json")
    monkeypatch.setattr(network2, "MyCost", network2.QuadraticCost, raising=False)
    assert network2.load(tmp_path / "net.json").cost is network2.QuadraticCost


def test_functions_of_the_module():
    z, a, y = np.random.default_rng(0).random((3, 10, 1))
    for name in "sigmoid", "sigmoid_prime":
        np.testing.assert_array_equal(getattr(network2, name)(z), getattr(book, name)(z))
    for cost in "QuadraticCost", "CrossEntropyCost":
        ours, theirs = getattr(network2, cost), getattr(book, cost)
        assert ours.fn(a, y) == theirs.fn(a, y)
        np.testing.assert_array_equal(ours.delta(z, a, y), theirs.delta(z, a, y))
    for j in 0, 9, np.int64(4):
        np.testing.assert_array_equal(network2.vectorized_result(j), book.vectorized_result(j), strict=True)
    assert mnist_loader.vectorized_result is network2.vectorized_result
