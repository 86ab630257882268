"""What a baseline is made of. All that its file needs can be imported from here, and none of it is torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.rollout import Stepper


@dataclass(frozen=True)
class Baseline:
    """A hand-made optimizer with one number to tune, its learning rate, as the register keeps it.

    name: what jobs and results call it
    label: what reports call it
    centre: k of the learning rate 10^(k/4) in the middle of its first grid, near its usual optimum
    start: makes a fresh run from a learning rate. A run takes the shape of its memory from the first gradient and
        calls only methods of tensors, so that its file imports no torch
    torch: the name of the optimizer in torch.optim that it equals step by step, None where there is none
    settings: how that optimizer is called, beside its learning rate
    by_default: whether an evaluation that names no baselines includes it
    """

    name: str
    label: str
    centre: int
    start: Callable[[float], Stepper]
    torch: str | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    by_default: bool = True
