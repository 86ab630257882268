"""Adam (Kingma and Ba 2015) with torch's defaults."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from models.baselines.base import AtRate, Tunable, Untuned

if TYPE_CHECKING:
    from torch import Tensor

BETA_1, BETA_2 = 0.9, 0.999
EPSILON = 1e-8
DEFAULT_RATE = 1e-3


class AdamRun:
    def __init__(self) -> None:
        self._moments: tuple[Tensor, Tensor] | None = None
        self._count = 0

    def step(self, theta: Tensor, gradient: Tensor, learning_rate: float) -> None:
        if self._moments is None:
            self._moments = gradient.new_zeros(gradient.shape), gradient.new_zeros(gradient.shape)
        first, second = self._moments
        self._count += 1
        first.lerp_(gradient, 1 - BETA_1)
        second.mul_(BETA_2).addcmul_(gradient, gradient, value=1 - BETA_2)
        scale = (second.sqrt() / math.sqrt(1 - BETA_2**self._count)).add_(EPSILON)
        theta.addcdiv_(first, scale, value=-learning_rate / (1 - BETA_1**self._count))


ADAM = Tunable("adam", "Adam", centre=-4, start=lambda _: AdamRun(), torch="Adam", usual_rate=DEFAULT_RATE)

ADAM_DEFAULT = Untuned(
    "adam_default",
    f"Adam {DEFAULT_RATE:g}",
    defaults=f"learning rate {DEFAULT_RATE:g}, torch's defaults",
    start=lambda _: AtRate(AdamRun(), lambda _: DEFAULT_RATE),
)
