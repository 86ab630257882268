"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019), with torch's defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.baselines.adam import AdamRun
from models.baselines.base import Tunable

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT_DECAY = 0.01


class AdamWRun:
    def __init__(self) -> None:
        self._adam = AdamRun()

    def step(self, theta: Tensor, gradient: Tensor, learning_rate: float) -> None:
        theta.mul_(1 - learning_rate * WEIGHT_DECAY)
        self._adam.step(theta, gradient, learning_rate)


ADAMW = Tunable("adamw", "AdamW", centre=-4, start=lambda _: AdamWRun(), torch="AdamW")
