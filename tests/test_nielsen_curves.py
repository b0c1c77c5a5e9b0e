"""The curves that the book published, computed again: same seeds, the shuffle of its Python 2, MNIST.

How much may the order of sums change? Two trainings that differ in nothing else answer it: one by the engine as it is,
one with all inputs and hidden neurons numbered backwards. Where a training forgets such differences (overfitting.json,
weight_initialization_30.json) all accuracies are the published ones to the last epoch and costs differ by 1e-13. In
overfitting_full.json they grow a thousandfold an epoch, so that from the fourth epoch on no two orders agree: there
ours must be as near to the published curve as to its own mirror image.

The curves in data/nielsen_curves are from the book's repository; licence beside them.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from nielsen import captured, seed

from fastbp.nielsen import mnist_loader, network, network2
from fastbp.nielsen.samples import Samples

CURVES = Path(__file__).parent / "data" / "nielsen_curves"
NAMES = ("evaluation_cost", "evaluation_accuracy", "training_cost", "training_accuracy")
ALL = {f"monitor_{name}": True for name in NAMES}


@pytest.fixture(scope="module")
def mnist_pairs():
    if "FASTBP_DATA" not in os.environ:
        pytest.skip("the environment variable FASTBP_DATA does not name a folder with MNIST")
    return mnist_loader.load_data_wrapper()


@pytest.fixture
def data(mnist_pairs):
    """Return lists of this test's own: training shuffles them."""
    return tuple(list(part) for part in mnist_pairs)


def published(name):
    return json.loads((CURVES / f"{name}.json").read_text())


def relative(ours, theirs):
    return np.abs(np.subtract(ours, theirs)) / np.abs(theirs)


def mirrored(net, *parts):
    """Number all inputs and hidden neurons backwards: the same network, whose sums are taken in another order."""
    net.weights = [net.weights[0][::-1, ::-1].copy(), net.weights[1][:, ::-1].copy()]
    net.biases[0] = net.biases[0][::-1].copy()
    return [[(x[::-1], y) for x, y in part] for part in parts]


def overfit(data, n_samples, epochs, mirror=False):
    """Run the book's fig/overfitting.py."""
    training, _, test = data
    seed(12345678)
    net = network2.Network([784, 30, 10], cost=network2.CrossEntropyCost())
    net.large_weight_initializer()
    training = training[:n_samples]
    if mirror:
        training, test = mirrored(net, training, test)
    options = {"evaluation_data": test, "lmbda": 0.0, "shuffle": "python2", **ALL}
    return captured(net.SGD, training, epochs, 10, 0.5, **options)[0]


def initialize(data, epochs):
    """Run the first epochs of both trainings of the book's fig/weight_initialization.py; return their accuracies.

    The second goes on with the generator and the list that the thirty epochs of the first leave.
    """
    training, validation, _ = data
    options = {"lmbda": 5.0, "evaluation_data": validation, "monitor_evaluation_accuracy": True, "shuffle": "python2"}
    seed(12345678)
    net = network2.Network([784, 30, 10], cost=network2.CrossEntropyCost)
    default = captured(net.SGD, training, epochs, 10, 0.1, **options)[0][1]
    for _ in range(30 - epochs):
        Samples(training).shuffle(random, "python2")
    net.large_weight_initializer()
    return default, captured(net.SGD, training, epochs, 10, 0.1, **options)[0][1]


def test_overfitting_begins_as_published(data):
    ours, theirs = overfit(data, 1000, 5), published("overfitting")
    for name, got, wanted in zip(NAMES, ours, theirs, strict=True):
        if name.endswith("accuracy"):
            assert got == wanted[:5]
        else:
            assert relative(got, wanted[:5]).max() < 1e-9


def test_weight_initialization_begins_as_published(data):
    default, large = initialize(data, 5)
    theirs = published("weight_initialization_30")
    assert default == theirs["default_weight_initialization"][1][:5]
    assert large == theirs["large_weight_initialization"][1][:5]


@pytest.mark.slow
def test_weight_initialization_to_the_end(data):
    default, large = initialize(data, 30)
    theirs = published("weight_initialization_30")
    assert default == theirs["default_weight_initialization"][1]
    assert large == theirs["large_weight_initialization"][1]


@pytest.mark.slow
def test_overfitting_to_the_end(data):
    ours, mirror, theirs = overfit(data, 1000, 400), overfit(data, 1000, 400, mirror=True), published("overfitting")
    for name, got, reordered, wanted in zip(NAMES, ours, mirror, theirs, strict=True):
        drift, distance = relative(got, reordered).max(), relative(got, wanted).max()
        print(f"{name}: {distance:.1e} from the published curve, {drift:.1e} by the order of sums")
        if name.endswith("accuracy"):
            assert got == reordered == wanted
        else:
            assert drift < 1e-12
            assert distance < 1e-12


@pytest.mark.slow
def test_overfitting_full_to_the_end(data):
    """Every epoch magnifies the last digits a thousandfold; after that, as near as another order of sums comes."""
    ours, mirror = overfit(data, 50_000, 30), overfit(data, 50_000, 30, mirror=True)
    for name, got, reordered, wanted in zip(NAMES, ours, mirror, published("overfitting_full"), strict=True):
        assert relative(got[:2], wanted[:2]).max() < 1e-9
        drift, distance = relative(got[5:], reordered[5:]), relative(got[5:], wanted[5:])
        print(f"{name}: {distance.mean():.1e} from the published curve, {drift.mean():.1e} by the order of sums")
        assert distance.mean() < 2 * drift.mean()


# What the book promises its readers


@pytest.mark.slow
def test_the_first_network_reaches_95_percent(data):
    """Chapter 1: [784, 30, 10], 30 epochs, mini-batches of 10, eta 3.0; seed 1."""
    training, _, test = data
    seed(1)
    net = network.Network([784, 30, 10])
    _, printed = captured(net.SGD, training, 30, 10, 3.0, test_data=test)
    best = max(int(line.split()[2]) for line in printed.splitlines())
    print(f"best epoch: {best} of 10000")
    assert best >= 9_500


@pytest.mark.slow
def test_the_better_network_reaches_97_and_a_half_percent(data):
    """Chapter 3: [784, 100, 10], cross-entropy, L2, better starting weights, at most 60 epochs; seed 1."""
    training, validation, _ = data
    seed(1)
    net = network2.Network([784, 100, 10], cost=network2.CrossEntropyCost)
    for epoch in range(60):
        options = {"lmbda": 5.0, "evaluation_data": validation, "monitor_evaluation_accuracy": True}
        hits = captured(net.SGD, training, 1, 10, 0.5, **options)[0][1][0]
        if hits >= 9_750:
            print(f"{hits} of 10000 after {epoch + 1} epochs")
            return
    pytest.fail("less than 97.5 % in 60 epochs")
