"""Rivals: the same training by fastbp, NumPy, scikit-learn, PyTorch, JAX and Keras, each in a process of its own.

So no library's threads, allocator or affinity meets another's, and each takes the cores that it takes by itself.
All start from the same weights; `epoch` trains in an order that is given, `run` in orders of its own, as its users do.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import time
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import numpy as np
from benchmarks.common import WORKS, Array, Work, noting_threads

from fastbp import reference

Parameters = tuple[list[Array], list[Array]]


class Rival(ABC):
    """One implementation at work."""

    needs: ClassVar[tuple[str, ...]] = ()
    pinned: ClassVar[bool] = False  # to one core
    threads = 0  # that computed in the last run; 0 where only the library knows

    def __init__(self, work: Work, dtype: str) -> None:
        self.work, self.dtype = work, dtype
        self.X, self.y = work.samples(dtype=dtype)
        self.Y = work.targets(self.y, dtype)
        self.rng = np.random.default_rng(1)
        start = work.network(dtype)
        self.weights, self.biases = [w.copy() for w in start.weights], [b.copy() for b in start.biases]

    @abstractmethod
    def epoch(self, order: Array) -> Any:
        """Train one epoch in that order."""

    @abstractmethod
    def parameters(self) -> Parameters:
        """Return weights (n_out, n_in) and biases."""

    def run(self, epochs: int) -> None:
        """Train epochs, each in a new order."""
        for _ in range(epochs):
            self.epoch(self.rng.permutation(self.work.n))

    def activations(self) -> tuple[str, ...]:
        """Return those of the layers."""
        return self.work.activations

    def quality(self) -> float:
        """Return the loss over (at most) the first 10 000 samples."""
        rows = slice(10_000)
        loss, activations = self.work.loss, self.activations()
        return reference.matrix.loss(*self.parameters(), activations, loss, self.X[rows], self.Y[rows])


class Fastbp(Rival):
    """fastbp: one call of `fit`."""

    def __init__(self, work: Work, dtype: str) -> None:
        super().__init__(work, dtype)
        self.network = work.network(dtype)
        self.arguments: dict[str, Any] = {"batch_size": work.batch_size, "optimizer": work.optimizer()}

    def epoch(self, order: Array) -> Any:
        """Train in that order by laying the samples out in it."""
        self.network.partial_fit(self.X[order], self.y[order], shuffle=False, **self.arguments)

    def run(self, epochs: int) -> None:
        """Train in orders of its own, and note the threads that it settles on."""
        with noting_threads() as noted:
            self.network.fit(self.X, self.y, epochs=epochs, verbose=False, **self.arguments)
        self.threads = noted[-1] if noted else 1

    def parameters(self) -> Parameters:
        """Return the network's."""
        return list(self.network.weights), list(self.network.biases)


class Numpy(Rival):
    """The reference in matrix form."""

    def __init__(self, work: Work, dtype: str) -> None:
        super().__init__(work, dtype)
        self.optimizer = reference.Optimizer([*self.weights, *self.biases], work.update, work.hyper)

    def epoch(self, order: Array) -> Any:
        """Train on rows gathered for each mini-batch."""
        work = self.work
        for batch in reference.minibatches(work.n, work.batch_size, order):
            _, dw, db = reference.matrix.loss_and_gradients(
                self.weights, self.biases, work.activations, work.loss, self.X[batch], self.Y[batch]
            )
            self.optimizer.step([*dw, *db])

    def parameters(self) -> Parameters:
        """Return those that the optimizer changes in place."""
        return self.weights, self.biases


class Sklearn(Rival):
    """scikit-learn's MLP: `max_iter` epochs of one `fit`, without stopping early."""

    needs = ("sklearn",)

    def __init__(self, work: Work, dtype: str) -> None:
        super().__init__(work, dtype)
        if not self.work.classifies and self.y.shape[1] == 1:
            self.y = self.y[:, 0]
        self.estimator = self.unfitted(batch_size=10)
        classes = {"classes": np.unique(self.y)} if work.classifies else {}
        self.estimator.partial_fit(self.X[:10], self.y[:10], **classes)  # makes the arrays
        for mine, start in zip(self.estimator.coefs_, self.weights, strict=True):
            mine[:] = start.T
        for mine, start in zip(self.estimator.intercepts_, self.biases, strict=True):
            mine[:] = start
        vars(self.estimator).pop("_optimizer", None)  # that of the step before

    def unfitted(self, **parameters: Any) -> Any:
        """Return a new estimator."""
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        work, names = self.work, {"sigmoid": "logistic"}
        return (MLPClassifier if work.classifies else MLPRegressor)(
            hidden_layer_sizes=work.sizes[1:-1], activation=names.get(work.hidden, work.hidden), solver=work.update,
            learning_rate_init=work.hyper["learning_rate"], alpha=0.0, momentum=0.0, nesterovs_momentum=False,
            **parameters,
        )  # fmt: skip

    def epoch(self, order: Array) -> Any:
        """Train in that order by laying the samples out in it."""
        self.estimator.set_params(batch_size=self.work.batch_size, shuffle=False)
        self.estimator.partial_fit(self.X[order], self.y[order])

    def run(self, epochs: int) -> None:
        """Fit a new estimator, as its users do."""
        endless = {"max_iter": epochs, "n_iter_no_change": epochs + 1}
        estimator = self.unfitted(batch_size=self.work.batch_size, **endless)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            estimator.fit(self.X, self.y)

    def parameters(self) -> Parameters:
        """Return those of the estimator that goes on from epoch to epoch."""
        return [w.T for w in self.estimator.coefs_], self.estimator.intercepts_

    def activations(self) -> tuple[str, ...]:
        """Return those of the layers: it has softmax where the work has ten sigmoids."""
        names = {"logistic": "sigmoid"}
        output = self.estimator.out_activation_
        return (*self.work.activations[:-1], names.get(output, output))


class Torch(Rival):
    """PyTorch, eager, with the fused optimizer."""

    needs = ("torch",)

    def __init__(self, work: Work, dtype: str) -> None:
        import torch

        super().__init__(work, dtype)
        activation = {"sigmoid": torch.nn.Sigmoid, "relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}
        layers: list[Any] = []
        self.linear = []
        for w, b, name in zip(self.weights, self.biases, work.activations, strict=True):
            linear = torch.nn.Linear(w.shape[1], w.shape[0], dtype=getattr(torch, dtype))
            with torch.no_grad():
                linear.weight.copy_(torch.tensor(w))
                linear.bias.copy_(torch.tensor(b))
            self.linear.append(linear)
            layers += [linear, activation[name]()] if name in activation else [linear]
        model = torch.nn.Sequential(*layers)
        kind = torch.optim.Adam if work.update == "adam" else torch.optim.SGD
        self.optimizer = kind(model.parameters(), lr=work.hyper["learning_rate"], fused=True)
        self.torch_X = torch.from_numpy(self.X)
        self.torch_y = torch.from_numpy(self.y if work.loss == "cross_entropy" else self.Y)
        cost: Callable[..., Any] = {
            "cross_entropy": torch.nn.functional.cross_entropy,
            "mse": torch.nn.functional.mse_loss,
            "quadratic": lambda a, y: 0.5 * (a - y).square().sum(dim=1).mean(),
        }[work.loss]
        self.objective: Callable[..., Any] = lambda X, y: cost(model(X), y)

    def epoch(self, order: Array) -> Any:
        """Train by the usual loop."""
        import torch

        for at in range(0, self.work.n, self.work.batch_size):
            batch = torch.from_numpy(order[at : at + self.work.batch_size])
            self.optimizer.zero_grad()
            self.objective(self.torch_X[batch], self.torch_y[batch]).backward()
            self.optimizer.step()

    def parameters(self) -> Parameters:
        """Return those of the linear layers."""
        return [l.weight.detach().numpy() for l in self.linear], [l.bias.detach().numpy() for l in self.linear]


class TorchCompiled(Torch):
    """PyTorch, the model with its loss compiled; needs a C++ compiler."""

    def __init__(self, work: Work, dtype: str) -> None:
        import torch

        super().__init__(work, dtype)
        self.objective = torch.compile(self.objective)


class Jax(Rival):
    """JAX and optax: an epoch is one jitted scan."""

    needs = ("jax", "optax")

    def __init__(self, work: Work, dtype: str) -> None:
        import jax
        import jax.numpy as jnp
        import optax

        super().__init__(work, dtype)
        jax.config.update("jax_enable_x64", dtype == "float64")
        sigma = {"sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu, "tanh": jnp.tanh, "identity": lambda z: z}
        cost: Callable[..., Any] = {
            "cross_entropy": lambda z, y: optax.softmax_cross_entropy_with_integer_labels(z, y).mean(),
            "mse": lambda z, y: jnp.square(z - y).mean(),
            "quadratic": lambda z, y: 0.5 * jnp.square(sigma[work.output](z) - y).sum(axis=1).mean(),
        }[work.loss]
        optimizer = (optax.adam if work.update == "adam" else optax.sgd)(work.hyper["learning_rate"])

        def loss(layers: Any, x: Any, y: Any) -> Any:
            for w, b in layers[:-1]:
                x = sigma[work.hidden](x @ w + b)
            return cost(x @ layers[-1][0] + layers[-1][1], y)

        def epoch(layers: Any, state: Any, X: Any, y: Any, order: Any) -> Any:
            def step(carry: Any, batch: Any) -> Any:
                layers, state = carry
                value, gradient = jax.value_and_grad(loss)(layers, X[batch], y[batch])
                change, state = optimizer.update(gradient, state, layers)
                return (optax.apply_updates(layers, change), state), value

            carry, losses = jax.lax.scan(step, (layers, state), order.reshape(-1, work.batch_size))
            return *carry, losses.mean()

        self.layers = [(jnp.asarray(w.T), jnp.asarray(b)) for w, b in zip(self.weights, self.biases, strict=True)]
        self.state = optimizer.init(self.layers)
        self.jitted = jax.jit(epoch)
        self.samples = jnp.asarray(self.X), jnp.asarray(self.y if work.loss == "cross_entropy" else self.Y)

    def epoch(self, order: Array) -> Any:
        """Run the scan and wait for its result."""
        self.layers, self.state, loss = self.jitted(self.layers, self.state, *self.samples, order)
        return float(loss)

    def parameters(self) -> Parameters:
        """Return the layers', which JAX has transposed."""
        return [np.asarray(w).T for w, _ in self.layers], [np.asarray(b) for _, b in self.layers]


class JaxPinned(Jax):
    """JAX on one core: where its threads would only wait for each other."""

    pinned = True


class Keras(Rival):
    """Keras on the JAX backend: `fit`."""

    needs = ("keras", "jax")

    def __init__(self, work: Work, dtype: str) -> None:
        import jax
        import keras

        super().__init__(work, dtype)
        jax.config.update("jax_enable_x64", dtype == "float64")
        keras.config.set_floatx(dtype)
        names = {"identity": "linear"}
        layers = [
            keras.layers.Dense(n, activation=names.get(activation, activation))
            for n, activation in zip(work.sizes[1:], work.activations, strict=True)
        ]
        self.model = keras.Sequential([keras.layers.Input((work.sizes[0],)), *layers])
        self.model.set_weights([a for w, b in zip(self.weights, self.biases, strict=True) for a in (w.T, b)])
        rate = work.hyper["learning_rate"]
        optimizer = keras.optimizers.Adam(rate, epsilon=1e-8) if work.update == "adam" else keras.optimizers.SGD(rate)
        cost = {
            "cross_entropy": "sparse_categorical_crossentropy",
            "mse": "mse",
            "quadratic": lambda y, a: 0.5 * keras.ops.sum(keras.ops.square(a - y), axis=-1),
        }[work.loss]
        self.model.compile(optimizer, cost)
        self.targets = self.y if work.loss == "cross_entropy" else self.Y
        self.arguments = {"batch_size": work.batch_size, "verbose": 0}

    def epoch(self, order: Array) -> Any:
        """Train in that order by laying the samples out in it."""
        self.model.fit(self.X[order], self.targets[order], shuffle=False, **self.arguments)

    def run(self, epochs: int) -> None:
        """Train in orders of its own."""
        self.model.fit(self.X, self.targets, epochs=epochs, **self.arguments)

    def parameters(self) -> Parameters:
        """Return the layers', which Keras has transposed."""
        arrays = self.model.get_weights()
        return [w.T for w in arrays[::2]], arrays[1::2]


RIVALS: dict[str, type[Rival]] = {
    "fastbp": Fastbp, "numpy": Numpy, "sklearn": Sklearn, "torch": Torch, "torch compiled": TorchCompiled,
    "jax": Jax, "jax on one core": JaxPinned, "keras": Keras,
}  # fmt: skip


def installed() -> list[str]:
    """Return the names of those that can run here."""
    return [name for name, kind in RIVALS.items() if all(importlib.util.find_spec(need) for need in kind.needs)]


class Arena:
    """A process in which one rival waits for its turns."""

    def __init__(self, name: str, dtype: str) -> None:
        self.name = name
        spawn = multiprocessing.get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(theirs, name, dtype), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, command: str, argument: Any) -> Any:
        """Return what the rival answers. Raises RuntimeError where it fails."""
        self.connection.send((command, argument))
        try:
            failed, answer = self.connection.recv()
        except EOFError:
            failed, answer = True, "its process died"
        if failed:
            raise RuntimeError(f"{self.name}: {answer}")
        return answer

    def close(self) -> None:
        """End the process."""
        self.connection.close()
        self.process.join(10)
        self.process.terminate()


def serve(connection: Connection, name: str, dtype: str) -> None:
    """Answer until nobody asks any more; the process is this rival's alone."""
    if RIVALS[name].pinned:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
        if hasattr(os, "sched_setaffinity"):  # before JAX counts the cores
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ["KERAS_BACKEND"] = "jax"
    host = Host(RIVALS[name], dtype)
    while True:
        try:
            command, argument = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            connection.send((False, getattr(host, command)(argument)))
        except Exception as error:
            message = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
            connection.send((True, message))


class Host:
    """What a rival's process can be asked."""

    def __init__(self, kind: type[Rival], dtype: str) -> None:
        self.kind, self.dtype = kind, dtype
        self.rival: Rival

    def learn(self, question: tuple[str, int]) -> float:
        """Begin a work, train so many epochs in orders that are the same for all; return the quality reached."""
        name, epochs = question
        work = WORKS[name]
        self.rival = self.kind(work, self.dtype)
        rng = np.random.default_rng(2)
        for _ in range(epochs):
            self.rival.epoch(rng.permutation(work.n))
        return float(self.rival.quality())

    def seconds(self, epochs: int) -> float:
        """Return the time of so many epochs."""
        start = time.perf_counter()
        self.rival.run(epochs)
        return time.perf_counter() - start

    def threads(self, _: None) -> int:
        """Return how many threads computed in the last run; 0 where that is not known."""
        return self.rival.threads
