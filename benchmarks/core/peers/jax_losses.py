"""One task's loss in JAX, for both JAX peers: (coordinates of the task,), its data -> ()."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.core.problem import CONVOLUTIONS, DENSE, IMAGE, MLP_SIZES

Array = Any


def quadratic(theta: Array, W: Array, y: Array) -> Array:
    return jnp.sum(jnp.square(W @ theta - y))


def mlp(theta: Array, images: Array, labels: Array) -> Array:
    n, hidden, classes = MLP_SIZES
    w1, b1, w2, b2 = jnp.split(theta, [n * hidden, n * hidden + hidden, n * hidden + hidden + hidden * classes])
    signal = jax.nn.sigmoid(images @ w1.reshape(n, hidden) + b1)
    return cross_entropy(signal @ w2.reshape(hidden, classes) + b2, labels)


def convnet(theta: Array, images: Array, labels: Array) -> Array:
    """Channels last inside, which XLA's CPU convolutions want; theta and the dense layer keep torch's order."""
    offset = 0

    def take(*shape: int) -> Array:
        nonlocal offset
        count = 1
        for size in shape:
            count *= size
        piece = theta[offset : offset + count].reshape(shape)
        offset += count
        return piece

    signal = images.reshape(-1, *IMAGE).transpose(0, 2, 3, 1)
    for into, out, stride in CONVOLUTIONS:
        weight = take(out, into, 3, 3).transpose(2, 3, 1, 0)
        signal = jax.lax.conv_general_dilated(
            signal, weight, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        signal = jax.nn.relu(signal + take(out))
    signal = signal.transpose(0, 3, 1, 2).reshape(signal.shape[0], -1)
    for level, (into, out) in enumerate(pairwise(DENSE)):
        signal = signal @ take(out, into).T + take(out)
        if level == 0:
            signal = jax.nn.relu(signal)
    return cross_entropy(signal, labels)


def cross_entropy(logits: Array, labels: Array) -> Array:
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1))


NETWORKS: dict[str, Callable[[Array, Array, Array], Array]] = {"mlp": mlp, "convnet": convnet}
