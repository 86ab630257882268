"""The coordinatewise LSTM in JAX, for both JAX peers. Weights by the product's names.

`axis` is where the features lie: 0 for (features, n), -1 for (n, features). Each peer has the layout that it is faster
with: the scan the first (by a quarter), learned_optimization the second.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.core.problem import HIDDEN, LOG_SIGN_P, OUTPUT_SCALE

Array = Any


def update(
    weights: dict[str, Array], gradient: Array, memory: tuple[Array, ...], axis: int
) -> tuple[Array, tuple[Array, ...]]:
    """(n,), 4 x (20, n) or 4 x (n, 20) -> the update (n,) and the next memory."""
    h1, c1, h2, c2 = memory
    signal = log_sign(jax.lax.stop_gradient(gradient), axis)
    h1, c1 = _cell(signal, h1, c1, weights["layers.0.weight"], weights["layers.0.bias"], axis)
    h2, c2 = _cell(h1, h2, c2, weights["layers.1.weight"], weights["layers.1.bias"], axis)
    readout = weights["readout_weight"]
    output = readout @ h2 if axis == 0 else h2 @ readout
    return OUTPUT_SCALE * (output + weights["readout_bias"]), (h1, c1, h2, c2)


def log_sign(gradient: Array, axis: int) -> Array:
    magnitude = jnp.maximum(jnp.log(jnp.abs(gradient)) / LOG_SIGN_P, -1.0)
    direction = jnp.clip(gradient * math.exp(LOG_SIGN_P), -1.0, 1.0)
    return jnp.stack([magnitude, direction], axis=axis)


def empty_memory(coordinates: int, axis: int) -> tuple[Array, ...]:
    shape = (HIDDEN, coordinates) if axis == 0 else (coordinates, HIDDEN)
    return tuple(jnp.zeros(shape, jnp.float32) for _ in range(4))


def _cell(signal: Array, hidden: Array, cell: Array, weight: Array, bias: Array, axis: int) -> tuple[Array, Array]:
    both = jnp.concatenate([signal, hidden], axis=axis)  # one product for input and hidden state together
    gates = weight @ both + bias[:, None] if axis == 0 else both @ weight.T + bias
    write, forget, candidate, show = jnp.split(gates, 4, axis=axis)
    cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(write) * jnp.tanh(candidate)
    return jax.nn.sigmoid(show) * jnp.tanh(cell), cell
