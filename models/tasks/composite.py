"""Losses of a smooth part and absolute values, as proximal methods see them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Composite:
    """A loss g(theta) + sum(l1 |theta|), whose gradients are those of g plus `l1 * sign(theta)`.

    l1: (coordinates,), 0 where a coordinate has no absolute value in the loss
    smoothness: (tasks,), at least the largest eigenvalue that the Hessian of g has anywhere
    """

    l1: Tensor
    smoothness: Tensor


def largest_eigenvalues(factor: Tensor) -> Tensor:
    """Those of F^T F: (tasks, rows, columns) -> (tasks,)."""
    rows, columns = factor.shape[1:]
    small = factor if rows <= columns else factor.transpose(1, 2)
    eigenvalues: Tensor = torch.linalg.eigvalsh(torch.bmm(small, small.transpose(1, 2)))
    return eigenvalues[:, -1]
