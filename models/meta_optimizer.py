"""Adam on the rule's weights as one flat vector, with a learning rate that decays along a cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BETA_1 = 0.9
BETA_2 = 0.999
EPSILON = 1e-8


@dataclass(frozen=True)
class AdamState:
    """Adam's memory (Kingma and Ba 2015); equal to torch.optim.Adam at its defaults, but a value: `updated` returns
    the next one, so that a checkpoint is a reference and not a copy."""

    first: Tensor
    second: Tensor
    count: int = 0

    @classmethod
    def zero(cls, like: Tensor) -> AdamState:
        return cls(torch.zeros_like(like), torch.zeros_like(like))

    def updated(self, weights: Tensor, gradient: Tensor, learning_rate: float) -> tuple[Tensor, AdamState]:
        """New weights and new memory, all (weights,)."""
        count = self.count + 1
        first = self.first.lerp(gradient, 1 - BETA_1)
        second = (BETA_2 * self.second).addcmul_(gradient, gradient, value=1 - BETA_2)
        scale = (second.sqrt() / math.sqrt(1 - BETA_2**count)).add_(EPSILON)
        moved = torch.addcdiv(weights, first, scale, value=-learning_rate / (1 - BETA_1**count))
        return moved, AdamState(first, second, count)


def cosine(base: float, final_ratio: float, step: int, total: int) -> float:
    """The learning rate of meta-step `step` (from 1) of `total`, from `base` down to `final_ratio * base`."""
    share = (step - 1) / max(1, total - 1)
    return base * (final_ratio + (1 - final_ratio) * 0.5 * (1 + math.cos(math.pi * share)))


def clipped(gradient: Tensor, limit: float) -> tuple[Tensor, float]:
    """The gradient scaled down to norm `limit` where it is longer, and its norm before that."""
    norm = float(torch.linalg.vector_norm(gradient))
    return (gradient * (limit / norm) if norm > limit else gradient), norm


def averaged_weights(average: Tensor, weights: Tensor, decay: float, count: int) -> Tensor:
    """The next moving average of the weights after meta-step `count` (from 1).

    The steps of Adam that a good meta-learning rate takes are noisy, and the loss late in the horizon feels it most;
    their average sits closer to the middle of the valley (Polyak and Juditsky 1992). Young averages forget faster.
    """
    return average.lerp(weights, 1 - min(decay, count / (count + 10)))
