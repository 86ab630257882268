"""The coordinatewise LSTM in JAX, for both JAX peers. Weights by the product's names."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.core.problem import HIDDEN, LOG_SIGN_P, OUTPUT_SCALE

Array = Any


def update(weights: dict[str, Array], gradient: Array, memory: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
    """(n,), 4 x (n, 20) -> the update (n,) and the next memory. One product a layer, on input and hidden together."""
    h1, c1, h2, c2 = memory
    h1, c1 = _cell(
        log_sign(jax.lax.stop_gradient(gradient)), h1, c1, weights["layers.0.weight"], weights["layers.0.bias"]
    )
    h2, c2 = _cell(h1, h2, c2, weights["layers.1.weight"], weights["layers.1.bias"])
    return OUTPUT_SCALE * (h2 @ weights["readout_weight"] + weights["readout_bias"]), (h1, c1, h2, c2)


def log_sign(gradient: Array) -> Array:
    magnitude = jnp.maximum(jnp.log(jnp.abs(gradient)) / LOG_SIGN_P, -1.0)
    direction = jnp.clip(gradient * math.exp(LOG_SIGN_P), -1.0, 1.0)
    return jnp.stack([magnitude, direction], axis=-1)


def empty_memory(coordinates: int) -> tuple[Array, ...]:
    return tuple(jnp.zeros((coordinates, HIDDEN), jnp.float32) for _ in range(4))


def _cell(signal: Array, hidden: Array, cell: Array, weight: Array, bias: Array) -> tuple[Array, Array]:
    gates = jnp.concatenate([signal, hidden], axis=-1) @ weight.T + bias
    write, forget, candidate, show = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(write) * jnp.tanh(candidate)
    return jax.nn.sigmoid(show) * jnp.tanh(cell), cell
