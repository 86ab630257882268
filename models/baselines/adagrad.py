"""Adagrad (Duchi, Hazan and Singer 2011) with torch's defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.baselines.base import Tunable, nowhere

if TYPE_CHECKING:
    from torch import Tensor

EPSILON = 1e-10


class AdagradRun:
    def __init__(self) -> None:
        self._sum: Tensor | None = None

    def step(self, theta: Tensor, gradient: Tensor, learning_rate: float) -> None:
        if self._sum is None:
            self._sum = gradient.new_zeros(gradient.shape)
        self._sum.addcmul_(gradient, gradient)
        theta.addcdiv_(gradient, self._sum.sqrt().add_(EPSILON), value=-learning_rate)


ADAGRAD = Tunable("adagrad", "Adagrad", centre=-2, start=lambda _: AdagradRun(), torch="Adagrad", usual=nowhere)
