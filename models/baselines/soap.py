"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024), with the defaults of its authors.

It follows `pytorch_optimizer.SOAP`: both sides of a matrix have a basis, unless longer than MOST_ROWS, which then has
none; what is no matrix has Adam with the same decays. The first gradient makes the bases and moves nothing; every tenth
step, one power iteration and a QR decomposition renew them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from models.baselines.base import Tunable
from models.baselines.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor

    from models.tasks.base import TaskBatch

DECAY = 0.95
WEIGHT_DECAY = 0.01
EPSILON = 1e-8
RENEWED_EVERY = 10
MOST_ROWS = 256
"""Sides of a matrix that are longer than this have no basis: one of 784 costs more than a hundred small gradients."""


class SOAPRun:
    def __init__(self, tasks: TaskBatch) -> None:
        self._tensors = Tensors(tasks)
        self._runs: list[_TensorRun] = []

    def step(self, theta: Tensor, gradient: Tensor, learning_rate: float) -> None:
        own, gradients = self._tensors.of(theta), self._tensors.of(gradient)
        if not self._runs:
            self._runs = [_TensorRun(its) for its in gradients]
            return
        for run, tensor, its in zip(self._runs, own, gradients, strict=True):
            run.step(tensor, its, learning_rate)


class _TensorRun:
    """gradient: the first one, (tasks, rows, columns) or (tasks, size), which gives the bases"""

    def __init__(self, gradient: Tensor) -> None:
        self._mean, self._squares = gradient.new_zeros(gradient.shape), gradient.new_zeros(gradient.shape)
        sides = [1, 2] if gradient.dim() == 3 else []
        self._sides = [_Side(gradient, side) for side in sides if gradient.shape[side] <= MOST_ROWS]
        self._count = 0

    def step(self, theta: Tensor, gradient: Tensor, learning_rate: float) -> None:
        self._count += 1
        self._mean.lerp_(gradient, 1 - DECAY)
        self._squares.lerp_(self._projected(gradient).square(), 1 - DECAY)
        direction = self._projected(self._mean) / self._squares.sqrt().add_(EPSILON)
        for side in self._sides:
            direction = side.applied(direction, side.basis)
        begun = 1 - DECAY**self._count
        theta.sub_(direction, alpha=learning_rate * math.sqrt(begun) / begun)
        theta.mul_(1 - learning_rate * WEIGHT_DECAY)
        for side in self._sides:
            side.see(gradient)
            if self._count % RENEWED_EVERY == 0:
                self._squares = side.renewed(self._squares)

    def _projected(self, values: Tensor) -> Tensor:
        for side in self._sides:
            values = side.applied(values, side.basis.mT)
        return values


class _Side:
    """The preconditioner of the rows (side 1) or the columns (side 2) of matrices, and its basis, one in each column:
    (tasks, n, n)."""

    def __init__(self, gradient: Tensor, side: int) -> None:
        self._side = side
        length = gradient.shape[side]
        self._products = gradient.new_zeros(gradient.shape[0], length, length)
        self.see(gradient)
        self.basis: Tensor = self._products.svd()[0]  # of a symmetric matrix: eigenvectors, the largest value first

    def see(self, gradient: Tensor) -> None:
        """Add a gradient's products to the running mean."""
        rows = gradient if self._side == 1 else gradient.mT
        self._products.lerp_(rows @ rows.mT, 1 - DECAY)

    def applied(self, values: Tensor, matrices: Tensor) -> Tensor:
        """The matrices times the values, from this side."""
        return matrices @ values if self._side == 1 else values @ matrices.mT

    def renewed(self, squares: Tensor) -> Tensor:
        """Renew the basis; returns `squares` in its new order."""
        product = self._products @ self.basis
        order = (self.basis * product).sum(dim=1).argsort(dim=1, descending=True)  # (tasks, n)
        self.basis = _orthogonal(product.gather(2, order[:, None].expand(product.shape)))
        along = order[:, :, None] if self._side == 1 else order[:, None]
        return squares.gather(self._side, along.expand(squares.shape))


def _orthogonal(matrices: Tensor) -> Tensor:
    """The Q of their QR decompositions."""
    reflections, factors = matrices.geqrf()
    return reflections.orgqr(factors)


SOAP = Tunable("soap", "SOAP", by_default=False, centre=-4, start=SOAPRun, torch=None, matrices=True, rule=False)
