"""Bad input: every public entry point refuses it, says what, what is allowed and how, and nothing has changed."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, is_dataclass

import numpy as np
import pytest

import fastbp
from fastbp import SGD, Adam, Callback, Network

N, N_IN, N_OUT = 12, 5, 3
X = np.random.default_rng(0).random((N, N_IN), np.float32)
Y = np.arange(N) % N_OUT
REAL = np.random.default_rng(1).random((N, N_OUT), np.float32)


@dataclass(frozen=True)
class Bad:
    """A value, the error it makes, and what the message says besides the parameter's name."""

    value: object
    error: type[Exception]
    says: str


def with_entry(array, value, at=(2, 1)):
    changed = np.array(array, dtype=np.result_type(array, type(value)))
    changed[at] = value
    return changed


# What may come in the place of X, and of y


FINITE = r"every entry must be finite: remove or replace those that np\.isfinite"
BAD_X = {
    "NaN": Bad(with_entry(X, np.nan), ValueError, f"nan at row 2, column 1.*{FINITE}"),
    "infinity": Bad(with_entry(X, np.inf), ValueError, f"inf at row 2, column 1.*{FINITE}"),
    "negative infinity": Bad(with_entry(X, -np.inf), ValueError, f"-inf at row 2, column 1.*{FINITE}"),
    "NaN in the last place": Bad(with_entry(X, np.nan, (-1, -1)), ValueError, "nan at row 11, column 4"),
    "NaN, Fortran order": Bad(np.asfortranarray(with_entry(X, np.nan)), ValueError, "nan at row 2, column 1"),
    "NaN in a list": Bad(with_entry(X, np.nan).tolist(), ValueError, "nan at row 2, column 1"),
    "NaN, float16": Bad(with_entry(X, np.nan).astype("f2"), ValueError, "nan at row 2, column 1"),
    "beyond float32": Bad(
        with_entry(X.astype(float), 1e39),
        ValueError,
        r"1e\+39 at row 2, column 1.*float32 cannot hold.*dtype='float64'",
    ),
    "one dimension": Bad(X[0], ValueError, r"shape \(5,\).*two-dimensional with shape \(n, 5\).*reshape\(1, -1\)"),
    "three dimensions": Bad(X[None], ValueError, r"shape \(1, 12, 5\).*two-dimensional.*reshape\(len"),
    "a number": Bad(3.0, ValueError, r"shape \(\); it must be two-dimensional"),
    "a column too few": Bad(X[:, :4], ValueError, r"shape \(12, 4\).*shape \(n, 5\)"),
    "a column too many": Bad(np.zeros((N, 6)), ValueError, r"shape \(12, 6\).*shape \(n, 5\)"),
    "transposed": Bad(X.T, ValueError, r"shape \(5, 12\).*shape \(n, 5\)"),
    "no rows": Bad(X[:0], ValueError, r"is empty \(shape \(0, 5\)\); it must have at least one row of 5"),
    "no columns": Bad(X[:, :0], ValueError, r"shape \(12, 0\).*shape \(n, 5\)"),
    "an empty list": Bad([], ValueError, "is empty.*must have at least one row of 5"),
    "rows of many lengths": Bad([[0.0] * 5, [0.0] * 4], ValueError, "4 entries in row 1.*every row must have 5"),
    "object": Bad(
        X.astype(object), TypeError, r"dtype object; allowed are .*floats: convert it with .*astype\(float\)"
    ),
    "complex": Bad(X.astype(complex), TypeError, r"dtype complex128; allowed are .*hand over real numbers"),
    "strings": Bad(X.astype(str), TypeError, r"dtype <U\d+; allowed are .*convert numbers in text"),
    "bytes": Bad(X.astype("S"), TypeError, r"dtype \|S\d+; allowed are .*convert numbers in text"),
    "dates": Bad(
        np.zeros(X.shape, "M8[s]"), TypeError, r"dtype datetime64\[s\]; allowed are .*turn times into numbers"
    ),
    "durations": Bad(np.zeros(X.shape, "m8[s]"), TypeError, r"dtype timedelta64\[s\]; allowed are .*durations"),
    "records": Bad(np.zeros(N, [("a", "f4"), ("b", "f4")]), TypeError, "allowed are .*structured_to_unstructured"),
    "a list of words": Bad([["a", "b", "c", "d", "e"]], TypeError, "dtype <U1; allowed are"),
    "None": Bad(None, TypeError, "'NoneType'; allowed are arrays of bools, integers and floats"),
    "a dict": Bad({"a": 1}, TypeError, "'dict'; allowed are arrays of bools, integers and floats"),
    "a generator": Bad((row for row in X), TypeError, "'generator'; allowed are arrays of bools, integers and floats"),
    "a word": Bad("abc", TypeError, "dtype <U3; allowed are"),
    "masked": Bad(np.ma.array(X, mask=X > 0.9), ValueError, r"masked entries; every entry must have a value.*filled"),
}

LABELS = r"class labels must lie in 0\.\.2: np\.unique"
BAD_Y = {
    "a label too large": Bad(np.where(Y == 1, 3, Y), ValueError, rf"y\[1\] is 3; {LABELS}"),
    "a negative label": Bad(np.where(Y == 2, -1, Y), ValueError, rf"y\[2\] is -1; {LABELS}"),
    "labels from 1": Bad(Y + 1, ValueError, rf"y\[2\] is 3; {LABELS}"),
    "float labels": Bad(
        Y.astype(float), TypeError, r"dtype float64; .*class labels and must be integers: use .*astype"
    ),
    "bool labels": Bad(Y == 1, TypeError, "dtype bool; .*class labels and must be integers"),
    "words": Bad(np.array(list("abc") * 4), TypeError, "dtype <U1; allowed are"),
    "object": Bad(Y.astype(object), TypeError, "dtype object; allowed are"),
    "complex": Bad(np.eye(3)[Y] + 0j, TypeError, "dtype complex128; allowed are"),
    "None": Bad(None, TypeError, "'NoneType'; allowed are"),
    "too short": Bad(Y[:-1], ValueError, "11 targets, but there are 12 samples: hand over one target for each"),
    "too long": Bad(np.append(Y, 0), ValueError, "13 targets, but there are 12 samples: hand over one"),
    "empty": Bad(Y[:0], ValueError, "0 targets, but there are 12 samples"),
    "a number": Bad(2, ValueError, "is a single number; it must have one target for each of the 12 samples"),
    "one column": Bad(Y[:, None], ValueError, r"shape \(12, 1\).*\(n,\) for class labels or \(n, 3\).*np\.ravel"),
    "two columns": Bad(REAL[:, :2], ValueError, r"shape \(12, 2\).*shape \(n, 3\)"),
    "rows too few": Bad(np.eye(3)[Y[:-1]], ValueError, "11 targets, but there are 12 samples"),
    "three dimensions": Bad(np.zeros((N, 3, 1)), ValueError, r"shape \(12, 3, 1\).*two-dimensional"),
    "NaN": Bad(with_entry(np.eye(3)[Y], np.nan), ValueError, f"nan at row 2, column 1.*{FINITE}"),
    "infinity": Bad(with_entry(np.eye(3)[Y], np.inf), ValueError, f"inf at row 2, column 1.*{FINITE}"),
    "no probability": Bad(with_entry(np.eye(3)[Y], -0.5), ValueError, r"-0\.5 at row 2, column 1.*must lie in 0\.\.1"),
    "no distribution": Bad(REAL, ValueError, "sums to .* in row 0.*must sum to 1: divide by"),
}

ASKED_WITH_X = ["fit", "partial_fit", "predict", "predict_classes", "activations", "loss", "accuracy", "gradients"]
ASKED_WITH_Y = ["fit", "partial_fit", "loss", "accuracy", "gradients"]


def ask(network, method, x, y):
    arguments = (x, y) if method in ASKED_WITH_Y else (x,)
    return getattr(network, method)(*arguments)


# What may come in the place of any other parameter of fit


INTEGER, TRUTH = "but must be an integer", "but must be True or False"
NUMBER = "but must be a number"
BAD_FIT = {
    "epochs": [
        Bad(-1, ValueError, "is -1, but must be at least 0"),
        Bad(2.0, TypeError, rf"is 2\.0, {INTEGER}"),
        Bad(True, TypeError, f"is True, {INTEGER}"),
        Bad(np.True_, TypeError, f"is .*True_?, {INTEGER}"),
        Bad("3", TypeError, f"is '3', {INTEGER}"),
        Bad(None, TypeError, f"is None, {INTEGER}"),
        Bad(np.nan, TypeError, f"is nan, {INTEGER}"),
        Bad([3], TypeError, rf"is \[3\], {INTEGER}"),
        Bad(np.array([1, 2]), TypeError, rf"is array\(\[1, 2\]\), {INTEGER}"),
        Bad(np.array(2.0), TypeError, rf"is array\(2\.\), {INTEGER}"),
    ],
    "batch_size": [
        Bad(0, ValueError, "is 0, but must be at least 1"),
        Bad(-5, ValueError, "is -5, but must be at least 1"),
        Bad(1.0, TypeError, rf"is 1\.0, {INTEGER}"),
        Bad(True, TypeError, f"is True, {INTEGER}"),
        Bad("auto", TypeError, f"is 'auto', {INTEGER}"),
        Bad(None, TypeError, f"is None, {INTEGER}"),
        Bad(np.array([8, 8]), TypeError, rf"is array\(\[8, 8\]\), {INTEGER}"),
    ],
    "optimizer": [
        Bad("sdg", ValueError, "is 'sdg', but must be one of 'sgd', 'adam'"),
        Bad("Adam", ValueError, "is 'Adam', but must be one of 'sgd', 'adam'"),
        Bad("", ValueError, "is '', but must be one of"),
        Bad(SGD, TypeError, r"SGD.*but must be 'sgd', 'adam'.*write SGD\(\) rather than SGD"),
        Bad(0.1, TypeError, r"is 0\.1, but must be 'sgd', 'adam'"),
        Bad(None, TypeError, "is None, but must be 'sgd', 'adam'"),
    ],
    "shuffle": [
        Bad(1, TypeError, f"is 1, {TRUTH}"),
        Bad(None, TypeError, f"is None, {TRUTH}"),
        Bad("no", TypeError, f"is 'no', {TRUTH}"),
        Bad(np.array([True]), TypeError, rf"is array\(\[ ?True\]\), {TRUTH}"),
    ],
    "verbose": [
        Bad(1, TypeError, f"is 1, {TRUTH}"),
        Bad("auto", TypeError, f"is 'auto', {TRUTH}"),
    ],
    "n_threads": [
        Bad(0, ValueError, "is 0, but must be at least 1"),
        Bad(-1, ValueError, "is -1, but must be at least 1"),
        Bad(1.5, TypeError, rf"is 1\.5, {INTEGER}"),
        Bad(True, TypeError, f"is True, {INTEGER}"),
        Bad("all", TypeError, f"is 'all', {INTEGER}"),
        Bad(np.array([1, 2]), TypeError, rf"is array\(\[1, 2\]\), {INTEGER}"),
    ],
    "callbacks": [
        Bad(Callback, TypeError, "Callback.*write .*instance"),
        Bad(
            [Callback],
            TypeError,
            "holds <class .*instances of fastbp.Callback; write an instance rather than the class",
        ),
        Bad(Callback(), TypeError, r"is one Callback, but must be a sequence.*callbacks=\[callback\]"),
        Bad([Callback(), print], TypeError, "holds <built-in function print>, but must hold instances"),
        Bad("loss", TypeError, "'l', but must hold instances|is 'loss', but must be a sequence"),
        Bad(None, TypeError, "is None, but must be a sequence"),
        Bad(3, TypeError, "is 3, but must be a sequence"),
    ],
    "validation_data": [
        Bad(X, ValueError, r"is a ndarray, but must be a pair \(X, y\)"),
        Bad((X,), ValueError, r"but must be a pair \(X, y\)"),
        Bad((X, Y, Y), ValueError, r"but must be a pair \(X, y\)"),
        Bad(0.2, ValueError, r"is a float, but must be a pair \(X, y\)"),
        Bad({"X": X, "y": Y}, ValueError, r"is a dict, but must be a pair \(X, y\)"),
        Bad((X, None), TypeError, r"validation_data\[1\] is 'NoneType'; allowed are"),
        Bad((with_entry(X, np.nan), Y), ValueError, r"validation_data\[0\] is nan at row 2, column 1"),
        Bad((X[:, :2], Y), ValueError, r"validation_data\[0\] has shape \(12, 2\).*shape \(n, 5\)"),
        Bad((X[:0], Y[:0]), ValueError, r"validation_data\[0\] is empty"),
        Bad((X, Y + 1), ValueError, r"validation_data\[1\]\[2\] is 3; class labels must lie in 0\.\.2"),
        Bad((X, Y[:-1]), ValueError, r"validation_data\[1\] has 11 targets, but there are 12 samples"),
    ],
}
IN_PARTIAL_FIT = ["batch_size", "optimizer", "shuffle", "n_threads"]


# And in the places of those who make a network


ACTIVATION_NAMES = "'identity', 'sigmoid', 'tanh', 'relu'"
PAIR = "which does not go with output"
REAL_NUMBERS = "must hold real numbers"
GOOD = [(np.zeros((4, 5)), np.zeros(4)), (np.zeros((3, 4)), np.zeros(3))]


def init_with(l, i, value):
    """Return arrays for the start, one of them replaced."""
    init = [list(pair) for pair in GOOD]
    init[l][i] = value
    return init


BAD_NETWORK = [
    ("sizes", {"sizes": [3]}, ValueError, r"is \[3\], but needs at least the inputs and the outputs"),
    ("sizes", {"sizes": []}, ValueError, r"is \[\], but needs at least the inputs and the outputs"),
    ("sizes", {"sizes": [3, 0]}, ValueError, r"is \[3, 0\], but every layer needs at least 1 neuron"),
    ("sizes", {"sizes": [3, -2, 1]}, ValueError, r"is \[3, -2, 1\], but every layer needs at least 1 neuron"),
    ("sizes", {"sizes": "abc"}, TypeError, "is 'abc', but must be a list of integers"),
    ("sizes", {"sizes": b"ab"}, TypeError, "is b'ab', but must be a list of integers"),
    ("sizes", {"sizes": 3}, TypeError, "is 3, but must be a list of integers"),
    ("sizes", {"sizes": None}, TypeError, "is None, but must be a list of integers"),
    ("sizes", {"sizes": np.array(3)}, TypeError, r"is array\(3\), but must be a list of integers"),
    ("sizes", {"sizes": [3, 2.0]}, TypeError, r"is \[3, 2\.0\], but all of them must be integers"),
    ("sizes", {"sizes": [3, True]}, TypeError, r"is \[3, True\], but all of them must be integers"),
    ("sizes", {"sizes": [3, "2"]}, TypeError, r"is \[3, '2'\], but all of them must be integers"),
    ("sizes", {"sizes": [[3, 2]]}, TypeError, "but all of them must be integers"),
    ("sizes", {"sizes": np.array([3.0, 2.0])}, TypeError, "but all of them must be integers"),
    ("sizes", {"sizes": {5, 4, 3}}, TypeError, "but must be a list of integers"),
    ("hidden", {"hidden": "selu"}, ValueError, f"is 'selu', but must be one of {ACTIVATION_NAMES}$"),
    ("hidden", {"hidden": "softmax"}, ValueError, f"is 'softmax', but must be one of {ACTIVATION_NAMES}$"),
    ("hidden", {"hidden": "ReLU"}, ValueError, f"is 'ReLU', but must be one of {ACTIVATION_NAMES}$"),
    ("hidden", {"hidden": None}, TypeError, "is None, but must be the name of an activation, or a list"),
    ("hidden", {"hidden": np.tanh}, TypeError, "is <ufunc 'tanh'>, but must be the name"),
    ("hidden", {"hidden": []}, ValueError, "has 0 activations, but sizes has 1 hidden layers: give one a layer"),
    ("hidden", {"hidden": ["relu", "relu"]}, ValueError, "has 2 activations, but sizes has 1 hidden layers"),
    ("hidden", {"hidden": ["softmax"]}, ValueError, r"hidden\[0\] is 'softmax', but must be one of"),
    ("hidden", {"hidden": [3]}, TypeError, r"hidden\[0\] is 3, but must be one of the names"),
    ("hidden", {"sizes": [3, 2], "hidden": "selu"}, ValueError, "is 'selu', but must be one of"),
    (
        "output",
        {"output": "linear"},
        ValueError,
        f"is 'linear', but must be one of {ACTIVATION_NAMES}, 'exp', 'softmax'",
    ),
    ("output", {"output": ["relu"]}, TypeError, r"is \['relu'\], but must be one of the names"),
    ("output", {"output": None}, TypeError, "is None, but must be one of the names"),
    ("hidden", {"hidden": "exp"}, ValueError, f"is 'exp', but must be one of {ACTIVATION_NAMES}$"),
    ("loss", {"loss": "mse", "output": "exp"}, ValueError, f"is 'mse', {PAIR} 'exp': use 'poisson'"),
    ("loss", {"loss": "poisson", "output": "relu"}, ValueError, "an output of 'exp'"),
    ("loss", {"loss": "hinge"}, ValueError, "is 'hinge', but must be one of 'quadratic', 'mse', 'cross_entropy'"),
    ("loss", {"loss": 1}, TypeError, "is 1, but must be one of the names"),
    (
        "loss",
        {"loss": "quadratic", "output": "softmax"},
        ValueError,
        f"is 'quadratic', {PAIR} 'softmax': use 'cross_en",
    ),
    ("loss", {"loss": "mse", "output": "softmax"}, ValueError, f"is 'mse', {PAIR} 'softmax': use 'cross_entropy'"),
    (
        "loss",
        {"loss": "cross_entropy", "output": "tanh"},
        ValueError,
        f"{PAIR} 'tanh': use 'quadratic' or 'mse', or an",
    ),
    ("loss", {"loss": "cross_entropy", "output": "identity"}, ValueError, "an output of 'sigmoid', 'softmax'"),
    ("loss", {"loss": "cross_entropy", "output": "relu"}, ValueError, f"{PAIR} 'relu'"),
    ("bias", {"bias": "trained"}, ValueError, r"is 'trained', but must be True \(trained\), False \(none\) or 'fixed'"),
    ("bias", {"bias": None}, ValueError, "is None, but must be True"),
    ("bias", {"bias": 1}, ValueError, "is 1, but must be True"),
    ("bias", {"bias": np.ones(3)}, ValueError, r"is array\(\[1.*, but must be True"),
    ("dtype", {"dtype": "int8"}, ValueError, "is 'int8', but must be one of 'float32', 'float64'"),
    ("dtype", {"dtype": int}, ValueError, "is <class 'int'>, but must be one of 'float32', 'float64'"),
    ("dtype", {"dtype": "float16"}, ValueError, "is 'float16', but must be one of"),
    ("dtype", {"dtype": "complex64"}, ValueError, "is 'complex64', but must be one of"),
    ("dtype", {"dtype": ">f4"}, ValueError, "is '>f4', but must be one of"),
    ("dtype", {"dtype": None}, ValueError, "is None, but must be one of"),
    ("dtype", {"dtype": object}, ValueError, "is <class 'object'>, but must be one of"),
    ("dtype", {"dtype": "single precision"}, ValueError, "is 'single precision', but must be one of"),
    ("dtype", {"dtype": 32}, TypeError, "is 32, but must be one of"),
    (
        "seed",
        {"seed": "x"},
        TypeError,
        "is 'x', but must be an integer, a numpy.random.Generator, a SeedSequence or None",
    ),
    ("seed", {"seed": 1.0}, TypeError, r"is 1\.0, but must be an integer"),
    ("seed", {"seed": -1}, ValueError, "is -1, but must be an integer of at least 0"),
    ("seed", {"seed": True}, TypeError, "is True, but must be an integer"),
    ("seed", {"seed": np.random.RandomState(0)}, TypeError, r"is RandomState.*, but must be an integer"),
    ("seed", {"seed": [1, 2]}, TypeError, r"is \[1, 2\], but must be an integer"),
    ("init", {"init": "xavier"}, ValueError, "is 'xavier', but must be one of 'scaled_gaussian', .*'zeros'"),
    ("init", {"init": None}, TypeError, r"is a NoneType, but must be a name or a pair \(weights, biases\) a layer"),
    ("init", {"init": 3}, TypeError, "is a int, but must be a name or a pair"),
    ("init", {"init": []}, ValueError, "has 0 items, but this network has 2 weight layers"),
    ("init", {"init": GOOD[:1]}, ValueError, "has 1 items, but this network has 2 weight layers"),
    ("init", {"init": [w for w, _ in GOOD]}, ValueError, r"init\[0\] is a ndarray, but must be a pair"),
    ("init", {"init": [(w,) for w, _ in GOOD]}, ValueError, r"init\[0\] .*must be a pair"),
    ("init", {"init": init_with(1, 0, np.zeros((4, 3)))}, ValueError, r"init\[1\]\[0\] has shape \(4, 3\), .*\(3, 4\)"),
    ("init", {"init": init_with(0, 1, np.zeros(5))}, ValueError, r"init\[0\]\[1\] has shape \(5,\), .*needs \(4,\)"),
    ("init", {"init": init_with(0, 1, np.zeros((4, 1)))}, ValueError, r"init\[0\]\[1\] has shape \(4, 1\)"),
    ("init", {"init": init_with(0, 0, np.full((4, 5), np.nan))}, ValueError, r"init\[0\]\[0\] has values .*not finite"),
    ("init", {"init": init_with(0, 1, np.full(4, 1e39))}, ValueError, r"init\[0\]\[1\] has .*not finite in float32"),
    ("init", {"init": init_with(0, 0, np.zeros((4, 5), complex))}, TypeError, rf"init\[0\]\[0\] .*{REAL_NUMBERS}"),
    ("init", {"init": init_with(0, 0, np.zeros((4, 5), object))}, TypeError, rf"init\[0\]\[0\] .*{REAL_NUMBERS}"),
    ("init", {"init": init_with(0, 1, None)}, TypeError, rf"init\[0\]\[1\] .*{REAL_NUMBERS}"),
    ("init", {"init": init_with(0, 1, [1.0, [2.0], 3.0, 4.0])}, (TypeError, ValueError), r"init\[0\]\[1\] "),
    ("init", {"init": init_with(0, 1, np.ma.array(np.zeros(4), mask=[0, 1, 0, 0]))}, ValueError, "masked"),
]

W0, W1, B0, B1 = np.zeros((4, 5)), np.zeros((3, 4)), np.zeros(4), np.zeros(3)
BAD_WEIGHTS = [
    (None, TypeError, "is a NoneType, but must be one array a layer"),
    (3.0, TypeError, "is a float, but must be one array a layer"),
    ("ab", TypeError, "is a str, but must be one array a layer"),
    ([W0], ValueError, "has 1 items, but this network has 2 weight layers"),
    ([W0, W1, W1], ValueError, "has 3 items, but this network has 2 weight layers"),
    ([W0, W1.T], ValueError, r"weights\[1\] has shape \(4, 3\), but this layer needs \(3, 4\)"),
    ([W0.ravel(), W1], ValueError, r"weights\[0\] has shape \(20,\), but this layer needs \(4, 5\)"),
    ([W0, np.full_like(W1, np.inf)], ValueError, r"weights\[1\] has values that are not finite in float32"),
    ([W0 + 1e300, W1], ValueError, r"weights\[0\] has values that are not finite in float32"),
    ([W0.astype(complex), W1], TypeError, rf"weights\[0\] has dtype complex128, but {REAL_NUMBERS}"),
    ([W0.astype(str), W1], TypeError, rf"weights\[0\] has dtype <U\d+, but {REAL_NUMBERS}"),
    ([None, W1], TypeError, rf"weights\[0\] has dtype object, but {REAL_NUMBERS}"),
    ([[[0.0] * 5, [0.0]], W1], (TypeError, ValueError), r"weights\[0\] "),
]
BAD_BIASES = [
    (None, TypeError, "is a NoneType, but must be one array a layer"),
    ([B0], ValueError, "has 1 items, but this network has 2 weight layers"),
    ([B0, B0], ValueError, r"biases\[1\] has shape \(4,\), but this layer needs \(3,\)"),
    ([B0, B1[:, None]], ValueError, r"biases\[1\] has shape \(3, 1\), but this layer needs \(3,\)"),
    ([B0 * np.nan, B1], ValueError, r"biases\[0\] has values that are not finite"),
    ([B0.astype(object), B1], TypeError, rf"biases\[0\] has dtype object, but {REAL_NUMBERS}"),
    ([None, B1], TypeError, rf"biases\[0\] has dtype object, but {REAL_NUMBERS}"),
]
BAD_LAYERS = [
    ("l", (2, W1), IndexError, "is 2, but this network has the weight layers 0 to 1"),
    ("l", (-3, W1), IndexError, "is -3, but this network has the weight layers 0 to 1"),
    ("l", (1.0, W1), TypeError, f"is 1.0, {INTEGER}"),
    ("l", ("1", W1), TypeError, f"is '1', {INTEGER}"),
    ("l", (None, W1), TypeError, f"is None, {INTEGER}"),
    ("l", (True, W1), TypeError, f"is True, {INTEGER}"),
    ("weights", (0, W1), ValueError, r"has shape \(3, 4\), but this layer needs \(4, 5\)"),
    ("weights", (0, W0 * np.nan), ValueError, "has values that are not finite"),
    ("weights", (0, "a"), TypeError, rf"has dtype <U1, but {REAL_NUMBERS}"),
    ("biases", (0, W0, B1), ValueError, r"has shape \(3,\), but this layer needs \(4,\)"),
    ("biases", (0, None, B0 - np.inf), ValueError, "has values that are not finite"),
]
BAD_OPTIMIZERS = [
    ("learning_rate", lambda: SGD(0), ValueError, "is 0, but must be greater than 0"),
    ("learning_rate", lambda: SGD(-1), ValueError, "is -1, but must be greater than 0"),
    ("learning_rate", lambda: SGD(np.nan), ValueError, "is nan, but must be greater than 0"),
    ("learning_rate", lambda: Adam(np.inf), ValueError, "is inf, but must be greater than 0 and less than inf"),
    ("learning_rate", lambda: SGD(True), TypeError, f"is True, {NUMBER}"),
    ("learning_rate", lambda: Adam("x"), TypeError, f"is 'x', {NUMBER}"),
    ("momentum", lambda: SGD(momentum=1.0), ValueError, r"is 1\.0, but must be at least 0 and less than 1"),
    ("momentum", lambda: SGD(momentum=None), TypeError, f"is None, {NUMBER}"),
    ("nesterov", lambda: SGD(nesterov=True), ValueError, "is True, but momentum is 0: give a momentum such as"),
    ("nesterov", lambda: SGD(momentum=0.9, nesterov=1), TypeError, f"is 1, {TRUTH}"),
    ("beta_1", lambda: Adam(beta_1=1), ValueError, "is 1, but must be at least 0 and less than 1"),
    ("beta_2", lambda: Adam(beta_2=-0.1), ValueError, r"is -0\.1, but must be at least 0 and less than 1"),
    ("epsilon", lambda: Adam(epsilon=0), ValueError, "is 0, but must be greater than 0"),
    ("n", lambda: fastbp.set_num_threads(0), ValueError, "is 0, but must be at least 1"),
    ("n", lambda: fastbp.set_num_threads(2.0), TypeError, rf"is 2\.0, {INTEGER}"),
]


# Whatever is refused changes nothing


def digest(item):
    """Return the bits of an argument or of a network's state, as deep as they lie."""
    if isinstance(item, np.ndarray):
        return item.tobytes(), item.shape, item.dtype, item.strides, item.flags.writeable
    if isinstance(item, list | tuple):
        return type(item), tuple(digest(inner) for inner in item)
    if isinstance(item, dict):
        return tuple((key, digest(inner)) for key, inner in item.items())
    if isinstance(item, np.random.Generator):
        return digest(item.bit_generator.state)
    if is_dataclass(item) and not isinstance(item, type):
        return digest(vars(item))
    return repr(item)


def state_of(network):
    """Return the bits of all that a network owns, the optimizer's state and the generator too, and its answers."""
    return digest(network.__getstate__()), network.predict(X).tobytes()


class Guard:
    """A network with a past, its state, and the arguments of a call; afterwards all is as it was."""

    def __init__(self, *arguments):
        self.network = Network([N_IN, 4, N_OUT], output="softmax", seed=0)
        self.network.partial_fit(X, Y, batch_size=4, optimizer=Adam(0.01))
        self.arguments = X, Y, arguments
        self.before = state_of(self.network), digest(self.arguments), fastbp.get_num_threads()
        self.twin = copy.deepcopy(self.network)

    def check(self):
        assert (state_of(self.network), digest(self.arguments), fastbp.get_num_threads()) == self.before
        for network in (self.network, self.twin):
            network.partial_fit(X, Y, batch_size=4, optimizer=Adam(0.01))
        assert state_of(self.network) == state_of(self.twin), "it trains on as if nothing had been asked"


def refused(error, name, says, call):
    """Make a call that must be refused; the message names the parameter and says what is wrong and allowed."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message), f"{name} is not named: {message}"
    assert re.search(says, message, re.DOTALL), message
    assert len(message) < 600, "no array is printed whole"


@pytest.mark.parametrize("method", ASKED_WITH_X)
@pytest.mark.parametrize("case", BAD_X)
def test_X(case, method):
    bad = BAD_X[case]
    guard = Guard(bad.value)
    refused(bad.error, "X", bad.says, lambda: ask(guard.network, method, bad.value, Y))
    guard.check()


@pytest.mark.parametrize("method", ASKED_WITH_Y)
@pytest.mark.parametrize("case", BAD_Y)
def test_y(case, method):
    bad = BAD_Y[case]
    guard = Guard(bad.value)
    refused(bad.error, "y", bad.says, lambda: ask(guard.network, method, X, bad.value))
    guard.check()


@pytest.mark.parametrize("method", ASKED_WITH_Y)
@pytest.mark.parametrize(
    ("y", "error", "says"),
    [
        (np.where(Y > 1, 2, 1), ValueError, r"2\.0 at row 2, column 0.*probabilities and must lie in 0\.\.1"),
        (np.full((N, 1), -0.25), ValueError, r"-0\.25 at row 0.*must lie in 0\.\.1: .*loss='quadratic' or 'mse'"),
        (REAL, ValueError, r"shape \(12, 3\).*shape \(n, 1\)"),
        (np.full(N, np.nan), ValueError, "nan at row 0"),
        (np.full(N, "1"), TypeError, "dtype <U1; allowed are"),
    ],
)
def test_y_of_one_output(y, error, says, method):
    network = Network([N_IN, 1], seed=0)
    before = state_of(network)
    refused(error, "y", says, lambda: ask(network, method, X, y))
    assert state_of(network) == before


def numbered(names):
    """Return an id for each case: its parameter, and which of its cases it is."""
    return [f"{name} {names[:i].count(name)}" for i, name in enumerate(names)]


TRAINING = [("fit", name, bad) for name, cases in BAD_FIT.items() for bad in cases]
TRAINING += [("partial_fit", name, bad) for _, name, bad in TRAINING if name in IN_PARTIAL_FIT]


@pytest.mark.parametrize(
    ("method", "name", "bad"), TRAINING, ids=numbered([f"{case[0]} {case[1]}" for case in TRAINING])
)
def test_arguments_of_training(method, name, bad):
    guard = Guard(bad.value)
    refused(bad.error, name, bad.says, lambda: getattr(guard.network, method)(X, Y, **{name: bad.value}))
    guard.check()


@pytest.mark.parametrize("method", [name for name in ASKED_WITH_X if name not in ("fit", "partial_fit")])
@pytest.mark.parametrize("bad", BAD_FIT["n_threads"], ids=lambda bad: repr(bad.value))
def test_threads_of_questions(bad, method):
    guard = Guard(bad.value)
    arguments = (X, Y) if method in ASKED_WITH_Y else (X,)
    refused(bad.error, "n_threads", bad.says, lambda: getattr(guard.network, method)(*arguments, n_threads=bad.value))
    guard.check()


@pytest.mark.parametrize(
    ("name", "options", "error", "says"), BAD_NETWORK, ids=numbered([case[0] for case in BAD_NETWORK])
)
def test_networks(name, options, error, says):
    before = digest(options)
    arguments = {"sizes": [5, 4, 3], **options}
    refused(error, name, says, lambda: Network(arguments.pop("sizes"), **arguments))
    assert digest(options) == before


@pytest.mark.parametrize("options", [{"hidden": "selu"}, {"init": "xavier"}, {"init": GOOD[:1]}, {"bias": 2}])
def test_a_refused_network_draws_nothing(options):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="but"):
        Network([5, 4, 3], seed=rng, **options)
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


@pytest.mark.parametrize(("weights", "error", "says"), BAD_WEIGHTS, ids=range(len(BAD_WEIGHTS)))
def test_weights(weights, error, says):
    guard = Guard(weights)
    refused(error, "weights", says, lambda: setattr(guard.network, "weights", weights))
    guard.check()


@pytest.mark.parametrize(("biases", "error", "says"), BAD_BIASES, ids=range(len(BAD_BIASES)))
def test_biases(biases, error, says):
    guard = Guard(biases)
    refused(error, "biases", says, lambda: setattr(guard.network, "biases", biases))
    guard.check()


@pytest.mark.parametrize(
    ("name", "arguments", "error", "says"), BAD_LAYERS, ids=numbered([case[0] for case in BAD_LAYERS])
)
def test_layers(name, arguments, error, says):
    guard = Guard(*arguments)
    refused(error, name, says, lambda: guard.network.set_layer(*arguments))
    guard.check()


@pytest.mark.parametrize(
    ("name", "call", "error", "says"), BAD_OPTIMIZERS, ids=numbered([case[0] for case in BAD_OPTIMIZERS])
)
def test_optimizers_and_threads(name, call, error, says):
    guard = Guard()
    refused(error, name, says, call)
    guard.check()


@pytest.mark.parametrize("name", ["sizes", "architecture", "dtype"])
def test_what_a_network_is_cannot_be_changed(name):
    guard = Guard()
    with pytest.raises(AttributeError, match=name):
        setattr(guard.network, name, getattr(guard.network, name))
    guard.check()


@pytest.mark.parametrize("method", ["fit", "predict"])
def test_unknown_keywords(method):
    guard = Guard()
    with pytest.raises(TypeError, match="learning_rate"):
        getattr(guard.network, method)(*((X, Y) if method == "fit" else (X,)), learning_rate=0.1)
    guard.check()


def test_the_guard_sees_what_changes():
    """What these tests rely on: parameters, the optimizer's state and the generator are all in the digest."""
    network = Network([N_IN, 4, N_OUT], output="softmax", seed=0)
    states = [state_of(network)]
    for change in (
        lambda: network.partial_fit(X, Y, optimizer="sgd", shuffle=False),
        lambda: network.set_layer(1, biases=network.biases[1]),  # forgets the optimizer's state
        lambda: network._rng.random(),
        lambda: network.set_layer(0, biases=network.biases[0] + 1),
    ):
        change()
        states.append(state_of(network))
    assert len(set(states)) == len(states)
    array = X.copy()
    digests = [digest([array])]
    array[0, 0] += 1
    digests.append(digest([array]))
    array.flags.writeable = False
    digests.append(digest([array]))
    assert all(one != other for i, one in enumerate(digests) for other in digests[i + 1 :])
