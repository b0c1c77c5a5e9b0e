"""Frameworks: the same training by PyTorch, JAX and Keras, each in the forms that were seen to win some work.

Eager or compiled, on all cores or on one, the parameters layer by layer or in one vector: which is the fastest depends
on the work.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from benchmarks.common import Array, Work
from rivals import Parameters, Rival

MANY = 50_000  # parameters from which XLA loses more by slicing one vector than it gains by updating it at once


class Torch(Rival):
    """PyTorch, eager, with the fused optimizer; on as many threads as it takes by itself."""

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
        self.model = torch.nn.Sequential(*layers)
        self.torch_X = torch.from_numpy(self.X)
        self.torch_y = torch.from_numpy(self.y if work.loss == "cross_entropy" else self.Y)
        self.cost: Callable[..., Any] = {
            "cross_entropy": torch.nn.functional.cross_entropy,
            "mse": torch.nn.functional.mse_loss,
            "quadratic": lambda a, y: 0.5 * (a - y).square().sum(dim=1).mean(),
        }[work.loss]
        self.step = self.stepping()

    def stepping(self) -> Callable[[Any, Any], None]:
        """Return what trains one mini-batch."""
        import torch

        kind = torch.optim.Adam if self.work.update == "adam" else torch.optim.SGD
        optimizer = kind(self.model.parameters(), lr=self.work.hyper["learning_rate"], fused=True)

        def step(x: Any, y: Any) -> None:
            optimizer.zero_grad()
            self.cost(self.model(x), y).backward()
            optimizer.step()

        return step

    def epoch(self, order: Array) -> Any:
        """Train by the usual loop."""
        import torch

        if self.whole:
            return self.step(self.torch_X, self.torch_y)
        for batch in torch.from_numpy(order).split(self.work.batch_size):
            self.step(self.torch_X.index_select(0, batch), self.torch_y.index_select(0, batch))

    def parameters(self) -> Parameters:
        """Return those of the linear layers."""
        return [l.weight.detach().numpy() for l in self.linear], [l.bias.detach().numpy() for l in self.linear]


class TorchPinned(Torch):
    """PyTorch on one core."""

    pinned = True


class TorchCompiled(Torch):
    """PyTorch, the whole step compiled, optimizer included; needs a C++ compiler."""

    def stepping(self) -> Callable[[Any, Any], None]:
        """Return what trains one mini-batch."""
        import torch

        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in parameters.items()}
        rate, adam = self.work.hyper["learning_rate"], self.work.update == "adam"
        t = torch.zeros(1, dtype=torch.float64)  # not of no dimension: PyTorch 2.13 reads such a one as 0

        def loss(parameters: Any, x: Any, y: Any) -> Any:
            return self.cost(torch.func.functional_call(self.model, parameters, (x,)), y)

        gradients = torch.func.grad(loss)

        def step(x: Any, y: Any) -> None:
            t.add_(1)
            for name, g in gradients(parameters, x, y).items():
                if adam:
                    m, v = moments[name]
                    m.lerp_(g, 1 - 0.9)
                    v.lerp_(g * g, 1 - 0.999)
                    g = m / (1 - 0.9**t) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
                parameters[name].sub_(rate * g)

        return torch.no_grad()(torch.compile(step))


class TorchCompiledPinned(TorchCompiled):
    """PyTorch, compiled, on one core."""

    pinned = True


class Jax(Rival):
    """JAX and optax: an epoch is one jitted scan, and so are several."""

    needs = ("jax", "optax")
    unroll: ClassVar[int] = 1  # mini-batches in the body of the scan's loop

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

        def loss(parameters: Any, x: Any, y: Any) -> Any:
            layers = self.layers_of(parameters)
            for w, b in layers[:-1]:
                x = sigma[work.hidden](x @ w + b)
            return cost(x @ layers[-1][0] + layers[-1][1], y)

        def epoch(parameters: Any, state: Any, X: Any, y: Any, order: Any) -> Any:
            def step(carry: Any, batch: Any) -> Any:
                parameters, state = carry
                here = (X, y) if self.whole else (X[batch], y[batch])
                value, gradient = jax.value_and_grad(loss)(parameters, *here)
                change, state = optimizer.update(gradient, state, parameters)
                return (optax.apply_updates(parameters, change), state), value

            batches = order.reshape(-1, work.batch_size)
            carry, losses = jax.lax.scan(step, (parameters, state), batches, unroll=self.unroll)
            return *carry, losses.mean()

        layers = [(jnp.asarray(w.T), jnp.asarray(b)) for w, b in zip(self.weights, self.biases, strict=True)]
        self.trained = self.trained_of(layers)
        self.state = optimizer.init(self.trained)
        self.jitted = jax.jit(epoch, donate_argnums=(0, 1))
        self.samples = jnp.asarray(self.X), jnp.asarray(self.y if work.loss == "cross_entropy" else self.Y)

    def trained_of(self, layers: Any) -> Any:
        """Return what the optimizer changes."""
        return layers

    def layers_of(self, trained: Any) -> Any:
        """Return the layers of what the optimizer changes."""
        return trained

    def epoch(self, order: Array) -> Any:
        """Run the scan and wait for its result."""
        order = order.astype(np.int32)
        self.trained, self.state, loss = self.jitted(self.trained, self.state, *self.samples, order)
        return float(loss)

    def run(self, epochs: int) -> None:
        """Train all of them in one scan, which is compiled anew for another number of them."""
        self.epoch(np.concatenate([self.order() for _ in range(epochs)]))

    def parameters(self) -> Parameters:
        """Return the layers', which JAX has transposed."""
        layers = self.layers_of(self.trained)
        return [np.asarray(w).T for w, _ in layers], [np.asarray(b) for _, b in layers]


class JaxPinned(Jax):
    """JAX on one core."""

    pinned = True


class JaxFlat(Jax):
    """JAX with all parameters in one vector, which is updated at once, and four mini-batches a turn of the loop."""

    unroll = 4

    @classmethod
    def suits(cls, work: Work) -> bool:
        """Whether the vector is short enough to be sliced in every mini-batch."""
        return super().suits(work) and sum((n_in + 1) * n_out for n_in, n_out in pairwise(work.sizes)) < MANY

    def trained_of(self, layers: Any) -> Any:
        """Return the vector."""
        from jax.flatten_util import ravel_pytree

        vector, self.unravel = ravel_pytree(layers)
        return vector

    def layers_of(self, trained: Any) -> Any:
        """Return the vector's slices, in the shapes of the layers."""
        return self.unravel(trained)


class JaxFlatPinned(JaxFlat):
    """JAX with one vector, on one core."""

    pinned = True


class Keras(Rival):
    """Keras on the JAX backend: `fit`."""

    needs = ("keras", "jax")
    adam_of_the_paper = False

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
        self.model.fit(self.X, self.targets, epochs=epochs, shuffle=not self.whole, **self.arguments)

    def parameters(self) -> Parameters:
        """Return the layers', which Keras has transposed."""
        arrays = self.model.get_weights()
        return [w.T for w in arrays[::2]], arrays[1::2]
