"""Adagrad (Duchi, Hazan and Singer 2011) with torch's defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.baselines.base import Baseline

if TYPE_CHECKING:
    from torch import Tensor

EPSILON = 1e-10


class AdagradRun:
    def __init__(self, learning_rate: float) -> None:
        self._learning_rate = learning_rate
        self._sum: Tensor | None = None

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        if self._sum is None:
            self._sum = gradient.new_zeros(gradient.shape)
        self._sum.addcmul_(gradient, gradient)
        theta.addcdiv_(gradient, self._sum.sqrt().add_(EPSILON), value=-self._learning_rate)


ADAGRAD = Baseline("adagrad", "Adagrad", centre=-2, start=AdagradRun, torch="Adagrad", by_default=False)
