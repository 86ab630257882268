"""Losses of one row: of what a model says of it, with the slope and the curvature."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional


class RowLoss(ABC):
    """outputs: (tasks, rows, outputs). targets: (tasks, rows), int64 where they are classes."""

    classes = False
    reconstructs = False
    """Whether a row's targets are its inputs, (tasks, rows, inputs)."""
    most_curved: float | None = None
    """At least the largest eigenvalue of the Hessian by a row's outputs; None where there is no bound."""

    @abstractmethod
    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(tasks, rows). Differentiable by `outputs`."""

    @abstractmethod
    def slopes(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The derivative by the outputs, of their shape."""

    @abstractmethod
    def curved(self, outputs: Tensor, targets: Tensor, along: Tensor) -> Tensor:
        """The Hessian by a row's outputs times `along`, both of the outputs' shape."""

    @abstractmethod
    def hits(self, outputs: Tensor, targets: Tensor) -> Tensor | None:
        """Which rows are classified correctly, (tasks, rows); None where targets are no classes."""

    def predicted(self, outputs: Tensor) -> Tensor:
        """The target that the outputs stand for, (tasks, rows); of losses whose targets are numbers."""
        return outputs[..., 0]


class _Number(RowLoss):
    """A loss of one output and a target that is a number."""

    def hits(self, outputs: Tensor, targets: Tensor) -> None:  # noqa: ARG002
        return None


class Squared(_Number):
    """Half the squared error."""

    most_curved = 1.0

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[..., 0] - targets).square() / 2

    def slopes(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs - targets[..., None]

    def curved(self, outputs: Tensor, targets: Tensor, along: Tensor) -> Tensor:  # noqa: ARG002
        return along.clone()


class Huber(_Number):
    """Half the squared error up to `delta`, linear beyond (Huber 1964)."""

    most_curved = 1.0

    def __init__(self, delta: float) -> None:
        self.delta = delta

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        error = (outputs[..., 0] - targets).abs()
        inside = error.clamp(max=self.delta)
        return inside * (error - inside / 2)

    def slopes(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets[..., None]).clamp(-self.delta, self.delta)

    def curved(self, outputs: Tensor, targets: Tensor, along: Tensor) -> Tensor:
        return along * ((outputs - targets[..., None]).abs() < self.delta)


class Poisson(_Number):
    """The negative log-likelihood of a count whose mean is the exponential of the output."""

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs[..., 0].exp() - targets * outputs[..., 0] + torch.lgamma(targets + 1)

    def predicted(self, outputs: Tensor) -> Tensor:
        return outputs[..., 0].exp()

    def slopes(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.exp() - targets[..., None]

    def curved(self, outputs: Tensor, targets: Tensor, along: Tensor) -> Tensor:  # noqa: ARG002
        return outputs.exp() * along


class Logistic(RowLoss):
    """Cross-entropy of two classes, of which the output is the second one's log-odds."""

    classes = True
    most_curved = 0.25

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.softplus(outputs[..., 0]) - targets * outputs[..., 0]

    def slopes(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.sigmoid() - targets[..., None]

    def curved(self, outputs: Tensor, targets: Tensor, along: Tensor) -> Tensor:  # noqa: ARG002
        share = outputs.sigmoid()
        return share * (1 - share) * along

    def hits(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[..., 0] > 0) == (targets > 0)


class Softmax(RowLoss):
    """Cross-entropy of several classes, one output each."""

    classes = True
    most_curved = 0.5

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.transpose(1, 2), targets, reduction="none")

    def slopes(self, outputs: Tensor, targets: Tensor) -> Tensor:
        shares = outputs.softmax(dim=2)
        return shares.scatter_add_(2, targets[..., None], shares.new_full((), -1.0).expand(*targets.shape, 1))

    def curved(self, outputs: Tensor, targets: Tensor, along: Tensor) -> Tensor:  # noqa: ARG002
        shares = outputs.softmax(dim=2)
        moved = shares * along
        return moved - shares * moved.sum(dim=2, keepdim=True)

    def hits(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.argmax(dim=2) == targets


class Reconstruction(RowLoss):
    """The mean over outputs of the squared error."""

    reconstructs = True

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean(dim=2)

    def slopes(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets) * (2 / outputs.shape[2])

    def curved(self, outputs: Tensor, targets: Tensor, along: Tensor) -> Tensor:  # noqa: ARG002
        return along * (2 / outputs.shape[2])

    def hits(self, outputs: Tensor, targets: Tensor) -> None:  # noqa: ARG002
        return None

    def predicted(self, outputs: Tensor) -> Tensor:
        return outputs


def row_loss(name: str, *, delta: float = 1.0) -> RowLoss:
    """The loss of that name. delta: of `huber`"""
    match name:
        case "squared":
            return Squared()
        case "huber":
            return Huber(delta)
        case "poisson":
            return Poisson()
        case "logistic":
            return Logistic()
        case "softmax":
            return Softmax()
    raise ValueError(f"there is no loss {name!r}; there are squared, huber, poisson, logistic and softmax")
