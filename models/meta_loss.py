"""What a meta-gradient is of: which losses the meta-loss counts, and whether second derivatives belong to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from models.spec import LossesOn, LossWeighting, MetaGradientMode
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
    def of(cls, mode: MetaGradientMode, weighting: LossWeighting, on: LossesOn = "training") -> MetaLoss:
        """That of a recipe."""
        weighted = square_rooted if weighting == "sqrt" else None
        return cls(mode, weighted if on == "training" else on_held_out(weighted))


def square_rooted(tasks: TaskBatch, theta: Tensor, step: int, losses: Tensor, gradient: Tensor) -> Tensor:  # noqa: ARG001
    """The gradient of 2 sqrt(loss), so that a loss of 0.01 is worth a tenth of a loss of 1 and not a hundredth: where
    losses fall by orders of magnitude, the late steps count too. Below LEAST_LOSS, loss / sqrt(LEAST_LOSS)."""
    weights = losses.clamp(min=LEAST_LOSS).rsqrt()
    return (gradient.view(tasks.tasks, -1) * weights[:, None]).view(-1)


def on_held_out(weighted: Outer | None) -> Outer:
    """The outer gradient on the data that the inner one has not seen, for tasks that are `parted`. weighted: what makes
    the counted gradient of that loss and its gradient."""

    def outer(tasks: TaskBatch, theta: Tensor, step: int, losses: Tensor, gradient: Tensor) -> Tensor:
        assert tasks.outer is not None, "the spec lets only families through whose data can be parted"
        losses, gradient = tasks.outer.losses_and_gradient(theta, step)
        return gradient if weighted is None else weighted(tasks.outer, theta, step, losses, gradient)

    return outer


PLAIN = MetaLoss()
"""The paper's: the sum of the losses, detached."""
