"""Tasks whose gradients and products with the Hessian are autograd's, of all tasks at once."""

from __future__ import annotations

import torch
from torch import Tensor

from models.tasks.base import TaskBatch


class AutogradBatch(TaskBatch):
    """A subclass has `losses`. The product differentiates the gradient once more, so that it is exact."""

    def losses_and_gradient(self, theta: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            free = theta.detach().requires_grad_()
            losses = self.losses(free, step)
            gradient = _gradient(losses, free)
        return losses.detach(), gradient.detach()

    def hessian_vector(
        self,
        theta: Tensor,
        step: int | Tensor,
        v: Tensor,
        *,
        gradient: Tensor | None = None,  # noqa: ARG002 - it is computed with a graph here
    ) -> Tensor:
        with torch.enable_grad():
            free = theta.detach().requires_grad_()
            slope = _gradient(self.losses(free, step), free, graph=True)
            return _gradient((slope * v).sum(), free).detach()  # the Hessian is symmetric


def _gradient(losses: Tensor, free: Tensor, *, graph: bool = False) -> Tensor:
    """Zero where the losses do not depend on `free`."""
    if not losses.requires_grad:
        return torch.zeros_like(free)
    (gradient,) = torch.autograd.grad(losses.sum(), free, create_graph=graph, materialize_grads=True)
    return gradient
