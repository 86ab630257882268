"""Gradients as a rule reads them: dense, and of what is to fall."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def needs_another(gradient: Tensor, maximize: bool) -> bool:
    """Whether a rule cannot read this gradient as it is. Asked for each parameter in each step."""
    return maximize or gradient.layout is not torch.strided


@contextlib.contextmanager
def readable(parameters: Iterable[tuple[Tensor, bool]]) -> Iterator[None]:
    """Within it these parameters have dense gradients, the negative ones where the second of the pair is True (the
    loss is maximized). Afterwards they have their own again: the same tensors, unchanged."""
    own: list[tuple[Tensor, Tensor]] = []
    try:
        for parameter, maximize in parameters:
            gradient = parameter.grad
            assert gradient is not None
            own.append((parameter, gradient))
            dense = gradient if gradient.layout is torch.strided else gradient.to_dense()
            parameter.grad = -dense if maximize else dense
        yield
    finally:
        for parameter, gradient in own:
            parameter.grad = gradient
