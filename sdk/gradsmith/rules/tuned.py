"""A hand-made optimizer with its best learning rate and schedule, as a rule like any other. It has no weights."""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
from torch import Tensor

from gradsmith.rules.base import Rule, Segments, State, planned
from gradsmith.rules.configs import TUNED_AVERAGES, TunedConfig

MOMENTUM = 0.9  # of nag
BETAS, ALPHA = (0.9, 0.999), 0.99  # of adam and adamw; of rmsprop
EPSILONS = {"adagrad": 1e-10}  # elsewhere 1e-8
WEIGHT_DECAY = 0.01  # of adamw


@final
class TunedRule(Rule):
    """torch.optim's SGD, SGD with Nesterov's momentum 0.9 (nag), RMSprop, Adam, AdamW or Adagrad, with torch's defaults
    but for the learning rate, step by step; the rate may fall to zero along a line or a cosine, for which the number of
    planned steps is asked. It stays where it has arrived when a run goes on beyond them.

    The memory is (coordinates, 1) for each running mean of the optimizer, and (tensors, 2): steps done and planned.

    settings: what each of them means and may be is told by `TunedConfig`
    """

    kind: ClassVar[str] = TunedConfig.kind
    coordinatewise = False
    of_tensors = 1
    rests = True
    settings: TunedConfig

    def __init__(self, settings: TunedConfig | None = None) -> None:
        super().__init__()
        self.settings = settings or TunedConfig()

    def initial_state(
        self,
        coordinates: int,
        *,
        tensors: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> State:
        """Zeros; see the class for their meaning."""
        widths = [1] * TUNED_AVERAGES[self.settings.optimizer]
        each = [torch.zeros(coordinates, width, dtype=dtype, device=device) for width in widths]
        return (*each, torch.zeros(tensors, 2, dtype=torch.promote_types(dtype, torch.float32), device=device))

    def plan(self, state: State, steps: int | None) -> State:
        """See `Rule.plan`."""
        return planned(self, state, steps)

    def shrinkage(self, state: State) -> Tensor | None:
        """See `Rule.shrinkage`: AdamW's decoupled weight decay."""
        return self._rate(state[-1]) * WEIGHT_DECAY if self.settings.optimizer == "adamw" else None

    def forward(self, gradient: Tensor, state: State, segments: Segments | None = None) -> tuple[Tensor, State]:
        """One step for all coordinates; see `Rule.forward`."""
        segments = segments or Segments((gradient.shape[0],), device=gradient.device)
        *own, numbers = state
        count = numbers[:, 0] + 1
        direction, after = self._direction(gradient, [each[:, 0] for each in own], count, segments)
        rate = segments.spread(self._rate(numbers)).to(gradient.dtype)
        kept = torch.stack((count, numbers[:, 1]), dim=1)
        return -rate * direction, (*(each[:, None] for each in after), kept)

    def _rate(self, numbers: Tensor) -> Tensor:
        """The learning rate of the step that comes, (tensors,)."""
        done = (numbers[:, 0] / numbers[:, 1].clamp(min=1)).clamp(max=1)
        factors = {
            "constant": torch.ones_like(done),
            "linear": 1 - done,
            "cosine": (1 + torch.cos(math.pi * done)) / 2,
        }
        return self.settings.learning_rate * factors[self.settings.schedule]

    def _direction(
        self, g: Tensor, own: list[Tensor], count: Tensor, segments: Segments
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What the learning rate is multiplied with, (coordinates,), and the running means after it."""
        kind = self.settings.optimizer
        epsilon = EPSILONS.get(kind, 1e-8)
        if kind == "sgd":
            return g, ()
        if kind == "nag":
            velocity = MOMENTUM * own[0] + g
            return g + MOMENTUM * velocity, (velocity,)
        if kind == "adagrad":
            total = own[0] + g * g
            return g / (_root(total) + epsilon), (total,)
        if kind == "rmsprop":
            squares = ALPHA * own[0] + (1 - ALPHA) * g * g
            return g / (_root(squares) + epsilon), (squares,)
        mean, squares = (b * each + (1 - b) * new for b, each, new in zip(BETAS, own, (g, g * g), strict=True))
        begun, squares_begun = (segments.spread(1 - b**count).to(g.dtype) for b in BETAS)
        return mean / begun / (_root(squares / squares_begun) + epsilon), (mean, squares)

    def config(self) -> dict[str, object]:
        """`kind` and the settings."""
        return self.settings.plain()

    def initialise(self, generator: torch.Generator) -> None:
        """It has no weights."""


def _root(squares: Tensor) -> Tensor:
    """The root, whose derivative at 0 is finite."""
    return squares.clamp(min=torch.finfo(squares.dtype).tiny).sqrt()
