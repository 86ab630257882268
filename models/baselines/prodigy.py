"""Prodigy (Mishchenko and Defazio 2023): Adam that estimates its step size, with the defaults of `prodigyopt`.

Each task has an estimate d of its own: the distance from its start to its optimum.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from models.baselines.base import Untuned

if TYPE_CHECKING:
    from torch import Tensor

BETA_1, BETA_2 = 0.9, 0.999
BETA_3 = math.sqrt(BETA_2)
EPSILON = 1e-8
FIRST_DISTANCE = 1e-6


class ProdigyRun:
    """tasks: how many there are on the axis of coordinates, one after the other, all of one size"""

    def __init__(self, tasks: int) -> None:
        self._tasks = tasks
        self._distance: Tensor | None = None

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        theta, gradient = theta.view(self._tasks, -1), gradient.view(self._tasks, -1)
        d = self._begin(theta) if self._distance is None else self._distance  # (tasks, 1); the rate beside it is 1
        weight = d / FIRST_DISTANCE * d
        self._numerator.mul_(BETA_3).add_(weight * (gradient * (self._start - theta)).sum(1, keepdim=True))
        self._first.mul_(BETA_1).add_(gradient * d, alpha=1 - BETA_1)
        self._second.mul_(BETA_2).add_((gradient * d).square_(), alpha=1 - BETA_2)
        self._sum.mul_(BETA_3).add_(gradient * weight)
        denominator = self._sum.abs().sum(1, keepdim=True)
        moved = denominator > 0  # a task whose gradients were all zero waits
        estimate = (self._numerator / denominator).where(moved, d)
        self._distance = grown = d.maximum(estimate)
        scale = self._second.sqrt().add_(grown * EPSILON)
        theta.sub_((self._first / scale * d).where(moved, 0.0))

    def _begin(self, theta: Tensor) -> Tensor:
        self._start = theta.clone()
        self._first, self._second, self._sum = (theta.new_zeros(theta.shape) for _ in range(3))
        self._numerator = theta.new_zeros(self._tasks, 1)
        return theta.new_full((self._tasks, 1), FIRST_DISTANCE)


PRODIGY = Untuned(
    "prodigy",
    "Prodigy",
    defaults=f"learning rate 1, first distance {FIRST_DISTANCE:g}, no weight decay",
    start=lambda tasks: ProdigyRun(tasks.tasks),
)
