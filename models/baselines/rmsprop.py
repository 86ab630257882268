"""RMSprop (Tieleman and Hinton 2012) with torch's defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.baselines.base import Tunable

if TYPE_CHECKING:
    from torch import Tensor

ALPHA = 0.99
EPSILON = 1e-8


class RMSpropRun:
    def __init__(self) -> None:
        self._square: Tensor | None = None

    def step(self, theta: Tensor, gradient: Tensor, learning_rate: float) -> None:
        if self._square is None:
            self._square = gradient.new_zeros(gradient.shape)
        self._square.mul_(ALPHA).addcmul_(gradient, gradient, value=1 - ALPHA)
        theta.addcdiv_(gradient, self._square.sqrt().add_(EPSILON), value=-learning_rate)


RMSPROP = Tunable("rmsprop", "RMSprop", centre=-6, start=lambda _: RMSpropRun(), torch="RMSprop", usual_rate=0.01)
