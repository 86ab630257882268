"""JAX, written well: the whole meta-step is one jitted function, a scan over inner steps with jax.checkpoint on its
body, so that a window keeps the carried state of each step and not the LSTM's insides.

Tried on the MLP on one core, and not faster: no checkpoint, a checkpoint that saves products, the scan unrolled by 2, 4
or whole, features last, a loss whose backward is a dot product with the gradient that is there already, the window's
backward replayed block by block of coordinates as ours is, and XLA's flags for fast math, oneDNN and the older runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.core.peers import jax_losses
from benchmarks.core.peers.base import Weights
from benchmarks.core.peers.jax_lstm import empty_memory, update
from benchmarks.core.problem import HORIZON, META_LEARNING_RATE, Loaded

Array = Any


class JaxScan:
    def __init__(self, loaded: Loaded, weights: Weights, threads: int) -> None:  # noqa: ARG002 - set by affinity
        self._problem = loaded.problem
        self._weights = {name: jnp.asarray(value) for name, value in weights.items()}
        self._adam = (
            jnp.zeros(()),
            *({name: jnp.zeros_like(value) for name, value in self._weights.items()} for _ in range(2)),
        )
        self._start = jnp.asarray(loaded["start"], jnp.float32)
        losses, self._data, self._rows = _losses_of(loaded)
        self._first_gradient = jax.jit(jax.grad(lambda theta, data, rows: losses(theta, data, rows).sum()))
        window = _window_of(losses, loaded.problem.tasks)
        self._meta_step = jax.jit(meta_step_of(window), donate_argnums=(0, 1, 2))
        self.counted_losses = loaded.problem.unroll_steps
        self.about = {
            "name": "JAX scan + checkpoint",
            "versions": f"jax {jax.__version__}",
            "settings": "one jit a meta-step, lax.scan, jax.checkpoint(prevent_cse=False), donated arguments",
        }

    def gradient(self) -> Weights:
        self.begin()
        spare = jax.tree.map(jnp.copy, (self._weights, self._adam))  # the call consumes what it is given
        *_, gradient = self._meta_step(*spare, self._position, self._data, self._rows_of_window())
        self.begin()
        return {name: np.asarray(value) for name, value in gradient.items()}

    def run(self, meta_steps: int) -> None:
        for _ in range(meta_steps):
            if self._step + self._problem.unroll_steps > HORIZON:
                self.begin()
            self._weights, self._adam, self._position, _ = self._meta_step(
                self._weights, self._adam, self._position, self._data, self._rows_of_window()
            )
            self._step += self._problem.unroll_steps
        jax.block_until_ready((self._weights, self._position))

    def begin(self) -> None:
        self._step = 0
        gradient = self._first_gradient(self._start, self._data, self._rows[0])
        self._position = (jnp.copy(self._start), empty_memory(self._problem.coordinates, axis=0), gradient)

    def _rows_of_window(self) -> Array:
        return self._rows[self._step + 1 : self._step + 1 + self._problem.unroll_steps]


make = JaxScan


def _losses_of(loaded: Loaded) -> tuple[Callable[[Array, Array, Array], Array], Array, np.ndarray[Any, Any]]:
    """(theta, data, rows of the minibatch) -> (tasks,), the data, and (HORIZON + 1, batch) rows."""
    if loaded.problem.kind == "quadratics":

        def quadratics(theta: Array, data: Array, _rows: Array) -> Array:
            W, y = data
            return jax.vmap(jax_losses.quadratic)(theta.reshape(y.shape), W, y)

        data = (jnp.asarray(loaded["W"], jnp.float32), jnp.asarray(loaded["y"], jnp.float32))
        return quadratics, data, np.zeros((HORIZON + 1, 1), np.int32)
    network = jax_losses.NETWORKS[loaded.problem.kind]

    def images(theta: Array, data: Array, rows: Array) -> Array:
        pixels, labels = data
        return network(theta, pixels[rows], labels[rows])[None]

    data = (jnp.asarray(loaded["pixels"].astype(np.float32) / 255), jnp.asarray(loaded["labels"]))
    return images, data, loaded["rows"]


def _window_of(losses: Callable[[Array, Array, Array], Array], tasks: int) -> Callable[..., Any]:
    def window(weights: dict[str, Array], position: Array, data: Array, rows: Array) -> tuple[Array, Array]:
        def summed(theta: Array, rows: Array) -> Array:
            return losses(theta, data, rows).sum()

        @lambda body: jax.checkpoint(body, prevent_cse=False)
        def body(carry: Array, rows: Array) -> tuple[Array, Array]:
            theta, memory, gradient = carry
            change, memory = update(weights, gradient, memory, axis=0)
            theta = theta + change
            loss, gradient = jax.value_and_grad(summed)(theta, rows)
            return (theta, memory, jax.lax.stop_gradient(gradient)), loss

        position, each = jax.lax.scan(body, position, rows)
        return each.sum() / tasks, position

    return window


def meta_step_of(window: Callable[..., Any]) -> Callable[..., Any]:
    """A window's meta-gradient, then Adam."""

    def meta_step(weights: Any, adam: Any, position: Any, data: Any, rows: Any) -> Any:
        gradient, position = jax.grad(window, has_aux=True)(weights, position, data, rows)
        count, first, second = adam
        count = count + 1
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)

        def moved(weight: Array, m: Array, v: Array) -> Array:
            step = META_LEARNING_RATE / (1 - 0.9**count)
            return weight - step * m / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)

        return jax.tree.map(moved, weights, first, second), (count, first, second), position, gradient

    return meta_step
