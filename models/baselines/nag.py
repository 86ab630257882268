"""Nesterov's accelerated gradient, in the form of Sutskever et al. (2013), with momentum 0.9."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.baselines.base import Tunable

if TYPE_CHECKING:
    from torch import Tensor

MOMENTUM = 0.9


class NAGRun:
    def __init__(self) -> None:
        self._velocity: Tensor | None = None

    def step(self, theta: Tensor, gradient: Tensor, learning_rate: float) -> None:
        if self._velocity is None:
            self._velocity = gradient.clone()
        else:
            self._velocity.mul_(MOMENTUM).add_(gradient)
        theta.add_(gradient.add(self._velocity, alpha=MOMENTUM), alpha=-learning_rate)


NAG = Tunable(
    "nag", "NAG", centre=-6, start=lambda _: NAGRun(), torch="SGD", settings={"momentum": MOMENTUM, "nesterov": True}
)
