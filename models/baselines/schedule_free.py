"""Schedule-Free AdamW (Defazio et al. 2024) with the defaults of the authors' package `schedulefree`.

Gradients are taken at y, between the fast iterate z and its average x; what the run is judged by is x.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.baselines.base import Untuned

if TYPE_CHECKING:
    from torch import Tensor

LEARNING_RATE = 0.0025
BETA_1, BETA_2 = 0.9, 0.999
EPSILON = 1e-8


class ScheduleFreeRun:
    def __init__(self) -> None:
        self._z: Tensor | None = None
        self._square: Tensor | None = None
        self._count = 0

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        if self._z is None or self._square is None:
            self._z, self._square = theta.clone(), gradient.new_zeros(gradient.shape)
        self._count += 1
        self._square.mul_(BETA_2).addcmul_(gradient, gradient, value=1 - BETA_2)
        scale = (self._square / (1 - BETA_2**self._count)).sqrt_().add_(EPSILON)
        direction = gradient / scale
        weight = 1 / self._count  # of z in the average x; theta is y, and x is never made
        theta.lerp_(self._z, weight)
        theta.add_(direction, alpha=LEARNING_RATE * (BETA_1 * (1 - weight) - 1))
        self._z.sub_(direction, alpha=LEARNING_RATE)

    def average(self, theta: Tensor) -> Tensor:
        """The average x, from y and z."""
        return theta if self._z is None else theta.lerp(self._z, 1 - 1 / BETA_1)


SCHEDULE_FREE = Untuned(
    "schedule_free",
    "Schedule-Free AdamW",
    defaults=f"learning rate {LEARNING_RATE:g}, no warm-up, no weight decay; judged at its average",
    start=lambda _: ScheduleFreeRun(),
)
