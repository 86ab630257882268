"""A learned learning rate and momentum at each step, on Adam's or NAG's direction."""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from gradsmith.rules.base import Rule, Segments, State, planned
from gradsmith.rules.configs import ScheduleConfig

SQUARES, EPSILON, USUAL_MOMENTUM = 0.999, 1e-8, 0.9

LAST_KNOT = 1e5
"""The step of the last knot over the logarithm of time; beyond it, as at it."""


@final
class ScheduleRule(Rule):
    """Two curves, straight between `knots` knots: the logarithm of the learning rate over `output_scale`, and the
    momentum's logit over that of 0.9. Knots lie evenly over the logarithm of the step's number, up to 100,000, or over
    the share of the planned steps that is done. 64 weights at the defaults; a fresh rule has both curves at zero.

    - adam: m / (sqrt(v) + 1e-8), with m and v corrected for their start and v's decay 0.999
    - nag: g + b m, with m = b m + g

    Tensors of different roles get schedules of their own where they get rules of their own (`RuleSet`). The square root
    counts as constant in derivatives; all else is differentiable.

    The memory is (coordinates, 1) momentum, for adam (coordinates, 1) running squares, and (tensors, 3): steps done,
    the product of the momenta so far less one, by which m is corrected, and steps planned.

    settings: what each of them means and may be is told by `ScheduleConfig`
    """

    kind: ClassVar[str] = ScheduleConfig.kind
    coordinatewise = False
    of_tensors = 1
    rests = True
    settings: ScheduleConfig

    def __init__(self, settings: ScheduleConfig | None = None) -> None:
        super().__init__()
        self.settings = settings or ScheduleConfig()
        self.log_rate = nn.Parameter(torch.zeros(self.settings.knots, dtype=torch.float32))
        self.momentum = nn.Parameter(torch.zeros(self.settings.knots, dtype=torch.float32))

    def initial_state(
        self,
        coordinates: int,
        *,
        tensors: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> State:
        """Zeros, but for the empty product, which is kept less one."""
        each = [torch.zeros(coordinates, 1, dtype=dtype, device=device) for _ in range(self._averages)]
        return (*each, torch.zeros(tensors, 3, dtype=torch.promote_types(dtype, torch.float32), device=device))

    @property
    def _averages(self) -> int:
        return 2 if self.settings.direction == "adam" else 1

    def plan(self, state: State, steps: int | None) -> State:
        """See `Rule.plan`."""
        return planned(self, state, steps)

    def forward(self, gradient: Tensor, state: State, segments: Segments | None = None) -> tuple[Tensor, State]:
        """One step for all coordinates; see `Rule.forward`."""
        segments = segments or Segments((gradient.shape[0],), device=gradient.device)
        *own, numbers = state
        count, less_one, steps = numbers.t()  # the product of the momenta so far, less one
        rate, momentum = self.curves(count, steps)
        product = momentum * (1 + less_one)

        def spread(values: Tensor) -> Tensor:
            return segments.spread(values).to(gradient.dtype)

        b, mean = spread(momentum), own[0][:, 0]
        after: tuple[Tensor, ...]
        if self.settings.direction == "nag":
            mean = b * mean + gradient
            update, after = -spread(rate) * (gradient + b * mean), (mean,)
        else:
            mean, held = b * mean + (1 - b) * gradient, gradient.detach()
            squares = SQUARES * own[1][:, 0].detach() + (1 - SQUARES) * held * held
            root = (squares / spread(1 - SQUARES ** (count + 1))).sqrt() + EPSILON
            update, after = -spread(rate / (1 - product)) * mean / root, (mean, squares)
        return update, (*(each[:, None] for each in after), torch.stack((count + 1, product - 1, steps), dim=1))

    def curves(self, count: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """The learning rate and the momentum of the step after `count` of `steps` planned ones; each (n,)."""
        weights = self._weights(count, steps)
        rate = self.settings.output_scale * (weights @ self.log_rate.to(weights.dtype)).clamp(-7, 5).exp()
        usual = math.log(USUAL_MOMENTUM / (1 - USUAL_MOMENTUM))
        return rate, torch.sigmoid(usual + weights @ self.momentum.to(weights.dtype))

    def _weights(self, count: Tensor, steps: Tensor) -> Tensor:
        """How much each knot counts at the step that comes: (n, knots), each row sums to 1."""
        if self.settings.over == "fraction":
            place = (count / steps.clamp(min=1)).clamp(max=1)
        else:
            place = ((count + 1).log() / math.log(LAST_KNOT)).clamp(max=1)
        knots = torch.arange(self.settings.knots, dtype=count.dtype, device=count.device)
        return (1 - (place[:, None] * (self.settings.knots - 1) - knots).abs()).clamp(min=0)

    def config(self) -> dict[str, object]:
        """`kind` and the settings."""
        return self.settings.plain()

    def initialise(self, generator: torch.Generator) -> None:  # noqa: ARG002
        """Both curves at zero: Adam or NAG with the learning rate `output_scale` and momentum 0.9."""
        with torch.no_grad():
            self.log_rate.zero_()
            self.momentum.zero_()
