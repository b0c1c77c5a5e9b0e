"""Peers: the time of an epoch beside NumPy, scikit-learn, PyTorch and JAX, in one run on the same work.

Usage: python asv_benchmarks/peers.py [--only 784-128-10 ...] [--rounds 7] [--json FILE]

All run in float32, from the same start, on the same samples and mini-batches, with all the cores that they take by
themselves; JAX runs an epoch as one compiled scan. Before anything is timed, the loss of one epoch in the same order
is compared (scikit-learn draws its own start and order: it is timed only). Rounds are interleaved; the best counts.
Peers that are not installed are left out: `pip install '.[bench]'` brings all but PyTorch.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import time
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import fastbp
from fastbp import reference

Array = NDArray[Any]
LEAST_SECONDS = 0.05  # a measurement takes at least so long


@dataclass(frozen=True)
class Work:
    """A network, its samples and its optimizer."""

    sizes: tuple[int, ...]
    hidden: str
    output: str
    loss: str
    optimizer: str
    eta: float
    batch_size: int
    n: int

    def samples(self) -> tuple[Array, Array]:
        """Return inputs, and class labels or targets, that can be learned."""
        rng = np.random.default_rng(0)
        if self.sizes[0] == 784:
            patterns = rng.random((10, 784), dtype=np.float32) * (rng.random((10, 784)) < 0.3)
            labels = rng.integers(10, size=self.n)
            return patterns[labels] * rng.random((self.n, 784), dtype=np.float32), labels
        X = rng.standard_normal((self.n, self.sizes[0]), dtype=np.float32)
        return X, np.tanh(X @ rng.standard_normal((self.sizes[0], self.sizes[-1]), dtype=np.float32))

    def network(self) -> fastbp.Network:
        """Return the start, the same at each call."""
        sizes, init = list(self.sizes), "glorot_uniform"
        return fastbp.Network(sizes, hidden=self.hidden, output=self.output, loss=self.loss, init=init, seed=0)


WORKS = {
    "784-30-10": Work((784, 30, 10), "sigmoid", "sigmoid", "quadratic", "sgd", 0.5, 10, 50_000),
    "784-128-10": Work((784, 128, 10), "relu", "softmax", "cross_entropy", "adam", 1e-4, 128, 49_920),
    "784-512-512-10": Work((784, 512, 512, 10), "relu", "softmax", "cross_entropy", "adam", 1e-4, 128, 49_920),
    "100-64-64-1": Work((100, 64, 64, 1), "tanh", "identity", "mse", "adam", 1e-4, 200, 20_000),
    "10-16-1": Work((10, 16, 1), "tanh", "identity", "mse", "adam", 1e-4, 32, 20_000),
    "4-32-16-4": Work((4, 32, 16, 4), "tanh", "identity", "mse", "adam", 1e-4, 10_000, 10_000),
}


class Peer(ABC):
    """One implementation at work."""

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, work: Work) -> None:
        self.work = work
        self.X, self.y = work.samples()
        self.rng = np.random.default_rng(1)
        start = work.network()
        self.weights, self.biases = start.weights, start.biases

    @property
    def targets(self) -> Array:
        """The targets as a matrix."""
        return reference.one_hot(self.y, self.work.sizes[-1], np.float32) if self.y.ndim == 1 else self.y

    @abstractmethod
    def epoch(self, order: Array) -> float:
        """Train one epoch in that order; return its mean loss."""

    def run(self, epochs: int) -> None:
        """Train epochs, each in a new order."""
        for _ in range(epochs):
            self.epoch(self.rng.permutation(self.work.n))


class Fastbp(Peer):
    """fastbp: one call of `fit`."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.network = work.network()
        optimizer = fastbp.Adam(work.eta) if work.optimizer == "adam" else fastbp.SGD(work.eta)
        self.arguments: dict[str, Any] = {"batch_size": work.batch_size, "optimizer": optimizer}

    def epoch(self, order: Array) -> float:
        """Train in that order by laying the samples out in it."""
        return self.network.partial_fit(self.X[order], self.y[order], shuffle=False, **self.arguments).loss[0]

    def run(self, epochs: int) -> None:
        """Train in orders of its own."""
        self.network.fit(self.X, self.y, epochs=epochs, verbose=False, **self.arguments)


class Numpy(Peer):
    """The reference in matrix form."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.activations = (work.hidden,) * (len(work.sizes) - 2) + (work.output,)
        self.state = list(self.weights), list(self.biases)

    def epoch(self, order: Array) -> float:
        """Train on rows gathered for each mini-batch."""
        work = self.work
        batches = [order[at : at + work.batch_size] for at in range(0, work.n, work.batch_size)]
        hyper = {"learning_rate": work.eta}
        *state, losses = reference.train(
            *self.state, self.activations, work.loss, self.X, self.targets, update=work.optimizer, hyper=hyper,
            batches=batches,
        )  # fmt: skip
        self.state = state[0], state[1]
        return float(np.mean(losses))


class Sklearn(Peer):
    """scikit-learn's MLP: `max_iter` epochs of one `fit`, without stopping early."""

    needs = ("sklearn",)

    def epoch(self, order: Array) -> float:
        """Not comparable: it draws its own start."""
        return float("nan")

    def run(self, epochs: int) -> None:
        """Fit a new estimator, as its users do."""
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        work = self.work
        kind = MLPClassifier if self.y.ndim == 1 else MLPRegressor
        names = {"sigmoid": "logistic"}
        estimator = kind(
            hidden_layer_sizes=work.sizes[1:-1], activation=names.get(work.hidden, work.hidden), solver=work.optimizer,
            batch_size=work.batch_size, learning_rate_init=work.eta, max_iter=epochs, alpha=0.0, momentum=0.0,
            nesterovs_momentum=False, n_iter_no_change=epochs + 1,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            estimator.fit(self.X, self.y if self.y.ndim == 1 or self.y.shape[1] > 1 else self.y[:, 0])


class Torch(Peer):
    """PyTorch, eager, with the fused optimizer."""

    needs = ("torch",)

    def __init__(self, work: Work) -> None:
        import torch

        super().__init__(work)
        activation = {"sigmoid": torch.nn.Sigmoid, "relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}
        layers: list[Any] = []
        for l, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            linear = torch.nn.Linear(w.shape[1], w.shape[0])
            with torch.no_grad():
                linear.weight.copy_(torch.tensor(w))
                linear.bias.copy_(torch.tensor(b))
            name = work.hidden if l < len(self.weights) - 1 else work.output
            layers += [linear, activation[name]()] if name in activation else [linear]
        self.model = torch.nn.Sequential(*layers)
        kind = torch.optim.Adam if work.optimizer == "adam" else torch.optim.SGD
        self.optimizer = kind(self.model.parameters(), lr=work.eta, fused=True)
        self.torch_X = torch.from_numpy(self.X)
        self.torch_y = torch.from_numpy(self.y if work.loss == "cross_entropy" else self.targets)
        self.cost = {
            "cross_entropy": torch.nn.functional.cross_entropy,
            "mse": torch.nn.functional.mse_loss,
            "quadratic": lambda a, y: 0.5 * (a - y).square().sum(dim=1).mean(),
        }[work.loss]

    def epoch(self, order: Array) -> float:
        """Train by the usual loop; the loss is read once, at the end."""
        import torch

        total = torch.zeros(())
        for at in range(0, self.work.n, self.work.batch_size):
            batch = torch.from_numpy(order[at : at + self.work.batch_size])
            self.optimizer.zero_grad()
            loss = self.cost(self.model(self.torch_X[batch]), self.torch_y[batch])
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
        return float(total) / -(-self.work.n // self.work.batch_size)


class Jax(Peer):
    """JAX and optax: an epoch is one jitted scan."""

    needs = ("jax", "optax")

    def __init__(self, work: Work) -> None:
        import jax
        import jax.numpy as jnp
        import optax

        super().__init__(work)
        sigma = {"sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu, "tanh": jnp.tanh, "identity": lambda z: z}
        cost = {
            "cross_entropy": lambda z, y: optax.softmax_cross_entropy_with_integer_labels(z, y).mean(),
            "mse": lambda z, y: jnp.square(z - y).mean(),
            "quadratic": lambda z, y: 0.5 * jnp.square(sigma[work.output](z) - y).sum(axis=1).mean(),
        }[work.loss]
        optimizer = optax.adam(work.eta) if work.optimizer == "adam" else optax.sgd(work.eta)

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
        self.samples = jnp.asarray(self.X), jnp.asarray(self.y if work.loss == "cross_entropy" else self.targets)

    def epoch(self, order: Array) -> float:
        """Run the scan and wait for its result."""
        self.layers, self.state, loss = self.jitted(self.layers, self.state, *self.samples, order)
        return float(loss)


PEERS: dict[str, type[Peer]] = {"fastbp": Fastbp, "numpy": Numpy, "sklearn": Sklearn, "torch": Torch, "jax": Jax}


def measure(work: Work, rounds: int) -> dict[str, float]:
    """Return the best seconds an epoch of each peer that is installed."""
    kinds = {name: kind for name, kind in PEERS.items() if all(importlib.util.find_spec(need) for need in kind.needs)}
    peers = {name: kind(work) for name, kind in kinds.items()}
    order = np.random.default_rng(2).permutation(work.n)
    losses = {name: peer.epoch(order) for name, peer in peers.items() if name != "sklearn"}
    for name, loss in losses.items():
        if not np.isclose(loss, losses["fastbp"], rtol=1e-3):
            raise SystemExit(f"{name} does other work than fastbp: loss {loss} instead of {losses['fastbp']}")
    repeats = {}
    for name, peer in peers.items():
        start = time.perf_counter()
        peer.run(1)
        repeats[name] = max(1, int(LEAST_SECONDS / (time.perf_counter() - start)) + 1)
    best = dict.fromkeys(peers, float("inf"))
    for _ in range(rounds):
        for name, peer in peers.items():
            start = time.perf_counter()
            peer.run(repeats[name])
            best[name] = min(best[name], (time.perf_counter() - start) / repeats[name])
    return best


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=WORKS, default=list(WORKS), help="rows of the table")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    print(f"ms an epoch, and in brackets times fastbp; {platform.machine()}, {fastbp.get_num_threads()} cores")
    results = {}
    for name in options.only:
        results[name] = best = measure(WORKS[name], options.rounds)
        ours = best["fastbp"]
        others = [f"{peer} {1e3 * t:.1f} ({t / ours:.1f})" for peer, t in best.items() if peer != "fastbp"]
        print(f"{name:15}  fastbp {1e3 * ours:8.2f}   {'   '.join(others)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
