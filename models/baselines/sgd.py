"""Stochastic gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.baselines.base import Baseline

if TYPE_CHECKING:
    from torch import Tensor


class SGDRun:
    def __init__(self, learning_rate: float) -> None:
        self._learning_rate = learning_rate

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        theta.add_(gradient, alpha=-self._learning_rate)


SGD = Baseline("sgd", "SGD", centre=-4, start=SGDRun, torch="SGD")
