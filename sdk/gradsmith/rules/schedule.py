"""A learned learning rate and momentum at each step, on Adam's, NAG's or Muon's direction."""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from gradsmith.rules.base import Rule, Segments, State, planned
from gradsmith.rules.configs import ScheduleConfig
from gradsmith.rules.orthogonal import orthogonalized_tensors

SQUARES, EPSILON, USUAL_MOMENTUM = 0.999, 1e-8, 0.9
MUONS_MOMENTUM = 0.95  # what a fresh rule's matrices have

LAST_KNOT = 1e5
"""The step of the last knot over the logarithm of time; beyond it, as at it."""


@final
class ScheduleRule(Rule):
    """Two curves, straight between `knots` knots: the logarithm of the learning rate over `output_scale`, and the
    momentum's logit over that of 0.9. Knots lie evenly over the logarithm of the step's number, up to 100,000, or over
    the share of the planned steps that is done. 64 weights at the defaults; a fresh rule has both curves at zero.

    - adam: m / (sqrt(v) + 1e-8), with m and v corrected for their start and v's decay 0.999
    - nag: g + b m, with m = b m + g
    - muon: of matrices, (1 - c) g + c m with m = b m + (1 - b) g, orthogonalized; other tensors have Adam's direction.
      Five curves, 160 weights: rate, b (over 0.95) and c (its logit over b's) of matrices, rate and momentum of others.
      A fresh rule is Muon with the learning rate `output_scale`, without weight decay

    Tensors of different roles get schedules of their own where they get rules of their own (`RuleSet`). The square root
    counts as constant in derivatives; all else is differentiable, the orthogonalization too.

    The memory is (coordinates, 1) momentum, for adam and muon (coordinates, 1) running squares, and (tensors, 3): steps
    done, the product of the momenta so far less one, by which m is corrected, and steps planned. Muon looks at the
    squares of matrices to know which coordinates have never had a gradient: they do not move.

    settings: what each of them means and may be is told by `ScheduleConfig`
    """

    kind: ClassVar[str] = ScheduleConfig.kind
    coordinatewise = False
    of_tensors = 1
    rests = True
    settings: ScheduleConfig
    log_rate: nn.Parameter
    momentum: nn.Parameter

    def __init__(self, settings: ScheduleConfig | None = None) -> None:
        super().__init__()
        self.settings = settings or ScheduleConfig()
        for name in self._curves:
            self.register_parameter(name, nn.Parameter(torch.zeros(self.settings.knots, dtype=torch.float32)))

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
        return 1 if self.settings.direction == "nag" else 2

    @property
    def _curves(self) -> tuple[str, ...]:
        of_matrices = ("lookahead", "log_rate_of_others", "momentum_of_others")
        return ("log_rate", "momentum", *(of_matrices if self.settings.direction == "muon" else ()))

    def plan(self, state: State, steps: int | None) -> State:
        """See `Rule.plan`."""
        return planned(self, state, steps)

    def forward(self, gradient: Tensor, state: State, segments: Segments | None = None) -> tuple[Tensor, State]:
        """One step for all coordinates; see `Rule.forward`."""
        segments = segments or Segments((gradient.shape[0],), device=gradient.device)
        *own, numbers = state
        count, less_one, steps = numbers.t()  # the product of the momenta so far, less one
        points = self._points(count, steps)
        matrices = segments.are_matrices if self.settings.direction == "muon" else None
        rate, momentum = self._of_points(points[:2])
        if matrices is not None:
            of_others = self._of_points(points[3:], USUAL_MOMENTUM)
            rate, momentum = torch.where(matrices, rate, of_others[0]), torch.where(matrices, momentum, of_others[1])
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
            adams = spread(_where(None if matrices is None else ~matrices, rate / (1 - product)))
            update, after = -adams * mean / root, (mean, squares)
            if matrices is not None:
                ahead = torch.lerp(
                    gradient, mean, spread(torch.sigmoid(_logit(MUONS_MOMENTUM) + points[1] + points[2]))
                )
                muons = spread(_where(matrices, rate)) * orthogonalized_tensors(ahead, segments)
                update = update - _where(squares > 0, muons)
        return update, (*(each[:, None] for each in after), torch.stack((count + 1, product - 1, steps), dim=1))

    def curves(self, count: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """The learning rate and the momentum of the step after `count` of `steps` planned ones, with Muon's direction
        those of matrices; each (n,)."""
        return self._of_points(self._points(count, steps)[:2])

    def _points(self, count: Tensor, steps: Tensor) -> list[Tensor]:
        """Each curve's point at the step that comes: (n,)."""
        weights = self._weights(count, steps)
        curves: list[Tensor] = [getattr(self, name) for name in self._curves]
        return [weights @ curve.to(weights.dtype) for curve in curves]

    def _of_points(self, points: list[Tensor], usual: float | None = None) -> tuple[Tensor, Tensor]:
        """Rate and momentum from the points of their two curves. usual: the momentum of a fresh rule"""
        usual = self._usual_momentum if usual is None else usual
        return self.settings.output_scale * points[0].clamp(-7, 5).exp(), torch.sigmoid(_logit(usual) + points[1])

    @property
    def _usual_momentum(self) -> float:
        return MUONS_MOMENTUM if self.settings.direction == "muon" else USUAL_MOMENTUM

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
        """All curves at zero: Adam, NAG or Muon with the learning rate `output_scale` and the usual momentum."""
        with torch.no_grad():
            for curve in self.parameters():
                curve.zero_()


def _where(there: Tensor | None, values: Tensor) -> Tensor:
    """Zero elsewhere; None: they are everywhere."""
    return values if there is None else values.where(there, 0.0)


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
