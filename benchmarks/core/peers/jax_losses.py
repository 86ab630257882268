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


def mlp(theta: Array, images: Array, labels: Array, sizes: tuple[int, int, int] = MLP_SIZES) -> Array:
    n, hidden, classes = sizes
    w1, b1, w2, b2 = jnp.split(theta, [n * hidden, n * hidden + hidden, n * hidden + hidden + hidden * classes])
    signal = jax.nn.sigmoid(images @ w1.reshape(n, hidden) + b1)
    return cross_entropy(signal @ w2.reshape(hidden, classes) + b2, labels)


def convnet(theta: Array, images: Array, labels: Array) -> Array:
    """Channels last inside; theta and the dense layer keep torch's order."""
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
        signal = jax.nn.relu(_convolved(signal, weight, stride) + take(out))
    signal = signal.transpose(0, 3, 1, 2).reshape(signal.shape[0], -1)
    for level, (into, out) in enumerate(pairwise(DENSE)):
        signal = signal @ take(out, into).T + take(out)
        if level == 0:
            signal = jax.nn.relu(signal)
    return cross_entropy(signal, labels)


def _convolved(signal: Array, weight: Array, stride: int) -> Array:
    """(batch, height, width, into), (3, 3, into, out): a 3x3 convolution with padding 1 as one product over shifted
    views. XLA's own convolution, differentiated twice on a CPU, is slower by an order of magnitude."""
    height, width = signal.shape[1] // stride, signal.shape[2] // stride
    padded = jnp.pad(signal, ((0, 0), (1, 1), (1, 1), (0, 0)))
    views = [
        padded[:, row : row + stride * (height - 1) + 1 : stride, column : column + stride * (width - 1) + 1 : stride]
        for row in range(3)
        for column in range(3)
    ]
    return jnp.concatenate(views, axis=-1) @ weight.reshape(-1, weight.shape[-1])


def cross_entropy(logits: Array, labels: Array) -> Array:
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1))


NETWORKS: dict[str, Callable[[Array, Array, Array], Array]] = {"mlp": mlp, "convnet": convnet}
