"""FISTA (Beck and Teboulle 2009): an accelerated proximal gradient method for losses with absolute values.

Its step is 1 over the largest curvature of the smooth part, which each task tells; nothing is tuned. Gradients are
taken at the extrapolated point, and it is judged at the point that the proximal step gave.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from models.baselines.base import Untuned

if TYPE_CHECKING:
    from torch import Tensor

    from models.task_spec import TaskSpec
    from models.tasks.base import TaskBatch
    from models.tasks.composite import Composite


class FISTARun:
    """theta is the extrapolated point, y in the paper; `average` gives x. t: the paper's momentum number."""

    def __init__(self, loss: Composite, tasks: int) -> None:
        size = loss.l1.shape[0] // tasks
        self._l1 = loss.l1
        self._rate = (1.0 / loss.smoothness).repeat_interleave(size)  # (coordinates,)
        self._t = 1.0
        self._point: Tensor | None = None

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        before = theta.clone() if self._point is None else self._point
        moved = theta - self._rate * (gradient - self._l1 * theta.sign())
        self._point = point = moved.sign() * (moved.abs() - self._rate * self._l1).clamp(min=0)
        t = (1 + math.sqrt(1 + 4 * self._t**2)) / 2
        theta.copy_(point + (point - before) * ((self._t - 1) / t))
        self._t = t

    def average(self, theta: Tensor) -> Tensor:
        """The point to judge."""
        return theta if self._point is None else self._point


def on_composites(tasks: TaskSpec) -> bool:
    """For a baseline that needs to know which part of a loss is absolute values."""
    return tasks.composite


def _started(tasks: TaskBatch) -> FISTARun:
    loss = tasks.composite()
    if loss is None:
        raise ValueError(
            f"FISTA is for losses of a smooth part and absolute values, and {type(tasks).__name__} tells none; leave "
            f"fista out"
        )
    return FISTARun(loss, tasks.tasks)


FISTA = Untuned(
    "fista",
    "FISTA",
    defaults="a step of 1 over the largest curvature of the smooth part; judged at the proximal point",
    start=_started,
    usual=on_composites,
    fits=on_composites,
)
