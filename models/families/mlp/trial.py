"""The kernel of networks is tried against autograd in float64 before it is handed out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from models.tasks.images import Images

SIZES = (7, 9, 5, 3)
"""The layers of the network that a kernel is tried with."""

_BATCH, _IMAGES = 13, 20


class Kernel(Protocol):
    """What `compiled.Networks` offers."""

    coordinates: int

    def gradient(self, images: Images, rows: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]: ...
    def product(self, images: Images, rows: Tensor, theta: Tensor, v: Tensor) -> Tensor: ...


def worst_error(kernel: Kernel, *, relu: bool) -> float:
    """The largest of three errors, of loss, gradient and product, of a network with two hidden layers: largest
    difference over largest value. NaN when the kernel gives NaN."""
    # The caller may be within autocast or under another default device: neither changes what is right.
    with torch.enable_grad(), torch.autocast("cpu", enabled=False), torch.device("cpu"):
        generator = torch.Generator("cpu").manual_seed(0)
        pixels = torch.randint(256, (_IMAGES, SIZES[0]), generator=generator).to(torch.uint8)
        images = Images(pixels, torch.randint(SIZES[-1], (_IMAGES,), generator=generator), 1 / 255)
        rows = torch.randint(_IMAGES, (1, _BATCH), generator=generator)
        theta, v = torch.randn(2, kernel.coordinates, generator=generator, dtype=torch.float32) / 2
        expected = by_autograd(SIZES, images, rows[0], theta.double(), v.double(), relu=relu)
        found = (*kernel.gradient(images, rows, theta), kernel.product(images, rows, theta, v))
    return max(
        ((one.double() - other).abs().max() / other.abs().max()).item()
        for one, other in zip(found, expected, strict=True)
    )


def by_autograd(
    sizes: Sequence[int], images: Images, rows: Tensor, theta: Tensor, v: Tensor, *, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """One network's loss, gradient and Hessian times v, in theta's precision."""
    theta = theta.clone().requires_grad_()
    signal, at = images.pixels[rows].to(theta) * images.scale, 0
    for level, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        weight = theta[at : at + fan_in * fan_out].view(fan_in, fan_out)
        at += fan_in * fan_out
        signal = signal @ weight + theta[at : at + fan_out]
        at += fan_out
        if level < len(sizes) - 2:
            signal = signal.relu() if relu else signal.sigmoid()
    loss = functional.cross_entropy(signal, images.labels[rows])
    (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
    (product,) = torch.autograd.grad(gradient @ v, theta)
    return loss.detach()[None], gradient.detach(), product
