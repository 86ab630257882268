"""What a meta-gradient is of: which losses the meta-loss counts, and whether second derivatives belong to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from models.spec import LossWeighting, MetaGradientMode
from models.tasks.base import TaskBatch

Outer = Callable[[TaskBatch, Tensor, int, Tensor, Tensor], Tensor]
"""The gradient of what the meta-loss counts of each task at theta, (coordinates,), from the tasks, theta, the step, and
the losses (tasks,) and the gradient that the inner loop has there."""

LEAST_LOSS = 1e-3
"""Losses below it count in proportion, not as roots, whose slope would be infinite at 0."""


@dataclass(frozen=True)
class MetaLoss:
    """The meta-loss of a window and the mode of its gradient.

    outer: None: the losses of the inner loop, as they are
    """

    mode: MetaGradientMode = "detached"
    outer: Outer | None = None

    @property
    def recordable(self) -> bool:
        """Whether windows may be recorded in a CUDA graph: neither autograd nor what a caller brings is held to it."""
        return self.mode == "detached" and self.outer in (None, square_rooted)

    @classmethod
    def of(cls, mode: MetaGradientMode, weighting: LossWeighting) -> MetaLoss:
        """That of a recipe."""
        return cls(mode, square_rooted if weighting == "sqrt" else None)


def square_rooted(tasks: TaskBatch, theta: Tensor, step: int, losses: Tensor, gradient: Tensor) -> Tensor:  # noqa: ARG001
    """The gradient of 2 sqrt(loss), so that a loss of 0.01 is worth a tenth of a loss of 1 and not a hundredth: where
    losses fall by orders of magnitude, the late steps count too. Below LEAST_LOSS, loss / sqrt(LEAST_LOSS)."""
    weights = losses.clamp(min=LEAST_LOSS).rsqrt()
    return (gradient.view(tasks.tasks, -1) * weights[:, None]).view(-1)


PLAIN = MetaLoss()
"""The paper's: the sum of the losses, detached."""
