"""Schedules: what the learning rate is multiplied by at each step of a run whose length is known beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda share: 1.0,  # noqa: ARG005
    "linear": lambda share: 1.0 - share,
    "cosine": lambda share: 0.5 * (1.0 + math.cos(math.pi * share)),
}
"""The factor by the share of the planned steps that is done: 0 at the first step, 1 after the last. `linear` and
`cosine` fall to zero there (torch's LinearLR with end_factor 0, and CosineAnnealingLR)."""


def rate(learning_rate: float, schedule: str, steps: int) -> Callable[[int], float]:
    """The learning rate at each step, 0 .. steps - 1."""
    factor = SCHEDULES[schedule]
    return lambda step: learning_rate * factor(step / steps)
