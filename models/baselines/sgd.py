"""Stochastic gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.baselines.base import Tunable

if TYPE_CHECKING:
    from torch import Tensor


class SGDRun:
    def step(self, theta: Tensor, gradient: Tensor, learning_rate: float) -> None:
        theta.add_(gradient, alpha=-learning_rate)


SGD = Tunable("sgd", "SGD", centre=-4, start=lambda _: SGDRun(), torch="SGD")
