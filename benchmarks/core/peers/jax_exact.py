"""JAX for exact meta-gradients: a scan over inner steps with a checkpoint on its body, as in `jax_scan`, where nothing
cuts the gradients that enter the rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.core.peers import jax_losses
from benchmarks.core.peers.base import Weights
from benchmarks.core.peers.exact_rules import ExactRule, Library, State
from benchmarks.core.peers.jax_scan import meta_step_of
from benchmarks.core.problem import HORIZON, SIZES, Loaded

Array = Any


def _column(numbers: object) -> Array:
    return jnp.asarray(numbers, jnp.float32)[:, None, None]


LIBRARY = Library(jnp, jax.lax.stop_gradient, jax.nn.elu, _column)


class JaxExact:
    def __init__(self, loaded: Loaded, weights: Weights, threads: int) -> None:  # noqa: ARG002 - set by affinity
        self._problem = loaded.problem
        self._weights = {name: jnp.asarray(value) for name, value in weights.items()}
        self._adam = (
            jnp.zeros(()),
            *({name: jnp.zeros_like(value) for name, value in self._weights.items()} for _ in range(2)),
        )
        self._start = jnp.asarray(loaded["start"], jnp.float32).reshape(loaded.problem.tasks, -1)
        summed, self._data, self._rows = _sum_of_losses(loaded)
        self._first_gradient = jax.jit(jax.grad(summed))
        rule = ExactRule(LIBRARY, loaded.problem.rule, loaded.problem.tensors)
        window = _window_of(rule, summed, loaded.problem.tasks)
        self._meta_step = jax.jit(meta_step_of(window), donate_argnums=(0, 1, 2))
        self.counted_losses = loaded.problem.unroll_steps
        self.about = {
            "name": "JAX scan + checkpoint, exact",
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
        problem = self._problem
        state = State.zero(jnp.zeros, problem.tasks, problem.coordinates_per_task, len(problem.tensors))
        self._position = (jnp.copy(self._start), state.tuple(), gradient, jnp.zeros(()))

    def _rows_of_window(self) -> Array:
        return self._rows[self._step + 1 : self._step + 1 + self._problem.unroll_steps]


make = JaxExact


def _sum_of_losses(loaded: Loaded) -> tuple[Callable[[Array, Array, Array], Array], Array, np.ndarray[Any, Any]]:
    """(theta (tasks, n), data, rows) -> the sum of the losses; the data; and (HORIZON + 1, tasks, batch) rows."""
    tasks = loaded.problem.tasks
    if loaded.problem.kind == "quadratics":

        def quadratics(theta: Array, data: Array, _rows: Array) -> Array:
            return jax.vmap(jax_losses.quadratic)(theta, *data).sum()

        data = (jnp.asarray(loaded["W"], jnp.float32), jnp.asarray(loaded["y"], jnp.float32))
        return quadratics, data, np.zeros((HORIZON + 1, tasks, 1), np.int32)
    sizes = SIZES[loaded.problem.kind]

    def images(theta: Array, data: Array, rows: Array) -> Array:
        pixels, labels = data
        each = jax.vmap(lambda theta, images, labels: jax_losses.mlp(theta, images, labels, sizes))
        return each(theta, pixels[rows], labels[rows]).sum()

    data = (jnp.asarray(loaded["pixels"].astype(np.float32) / 255), jnp.asarray(loaded["labels"]))
    return images, data, loaded["rows"].reshape(HORIZON + 1, tasks, -1)


def _window_of(rule: ExactRule, summed: Callable[[Array, Array, Array], Array], tasks: int) -> Callable[..., Any]:
    def window(weights: dict[str, Array], position: Array, data: Array, rows: Array) -> tuple[Array, Array]:
        @lambda body: jax.checkpoint(body, prevent_cse=False)
        def body(carry: Array, rows: Array) -> tuple[Array, Array]:
            theta, state, gradient, step = carry
            update, after = rule.update(weights, gradient, State(*state), step + 1)
            theta = theta + update
            loss, gradient = jax.value_and_grad(summed)(theta, data, rows)
            return (theta, after.tuple(), gradient, step + 1), loss

        position, each = jax.lax.scan(body, position, rows)
        return each.sum() / tasks, position

    return window
