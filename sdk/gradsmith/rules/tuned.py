"""A hand-made optimizer with its best learning rate and schedule, as a rule like any other. It has no weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, final

import torch
from torch import Tensor

from gradsmith.rules.base import Rule, Segments, State, planned
from gradsmith.rules.configs import TUNED_NUMBERS, TunedConfig
from gradsmith.rules.hand_made import METHODS, Now
from gradsmith.rules.shapes import side_numbers


@final
class TunedRule(Rule):
    """torch.optim's SGD, SGD with Nesterov's momentum 0.9 (nag), RMSprop, Adam, AdamW or Adagrad, with torch's defaults
    but for the learning rate, step by step; or Muon, SOAP or L-BFGS, as `gradsmith.rules.hand_made` has them. The rate
    may fall to zero along a line or a cosine, for which the number of planned steps is asked. It stays where it has
    arrived when a run goes on beyond them.

    Muon and SOAP ask for the tensors' shapes; where `forward` is told none, every tensor is a vector to them. L-BFGS
    takes the tensors of a task together, in `LearnedOptimizer` those of all groups. It learns of curvature from its own
    updates, so it does not know of a group's `lr` other than 1.

    The memory is (coordinates, 1) for each number that the optimizer remembers of a coordinate, of L-BFGS (coordinates,
    10) for the moves and for the changes; of SOAP, (numbers of sides, 1) for the products and the bases; and (tensors,
    2): steps done and planned.

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
        self._method = METHODS[self.settings.optimizer]
        self.of_sides, self.across_groups = self._method.of_sides, self._method.across_groups

    def initial_state(
        self,
        coordinates: int,
        *,
        tensors: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> State:
        """Zeros; see the class for their meaning."""
        return self._zeros(coordinates, 0, tensors, dtype, device)

    def memory_for(
        self,
        shapes: Sequence[Sequence[int]],
        tasks: int = 1,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> State:
        """See `Rule.memory_for`."""
        coordinates, sides = (tasks * sum(map(number, shapes)) for number in (math.prod, side_numbers))
        return self._zeros(coordinates, sides, tasks * len(shapes), dtype, device)

    def _zeros(
        self, coordinates: int, sides: int, tensors: int, dtype: torch.dtype, device: torch.device | str
    ) -> State:
        exact = torch.promote_types(dtype, torch.float32)
        widths = self._method.widths or (1,) * TUNED_NUMBERS[self.settings.optimizer]
        each = [torch.zeros(width, coordinates, dtype=dtype, device=device).t() for width in widths]
        each += [torch.zeros(sides, 1, dtype=exact, device=device) for _ in range(self.of_sides)]
        return (*each, torch.zeros(tensors, 2, dtype=exact, device=device))

    def plan(self, state: State, steps: int | None) -> State:
        """See `Rule.plan`."""
        return planned(self, state, steps)

    def shrinkage(self, state: State) -> Tensor | None:
        """See `Rule.shrinkage`: decoupled weight decay."""
        return self.shrinkage_at(self._rate(state[-1]), state)

    def shrinkage_at(self, rate: Tensor, state: State) -> Tensor | None:
        """`shrinkage` at a learning rate of each tensor, (tensors,), instead of the rule's own."""
        if not self._method.decay:
            return None
        share = rate * self._method.decay
        return share * (state[-1][:, 0] > 0) if self._method.waits else share

    def forward(self, gradient: Tensor, state: State, segments: Segments | None = None) -> tuple[Tensor, State]:
        """One step for all coordinates; see `Rule.forward`."""
        return self.stepped_at(self._rate(state[-1]), gradient, state, segments)

    def stepped_at(
        self, rate: Tensor, gradient: Tensor, state: State, segments: Segments | None = None
    ) -> tuple[Tensor, State]:
        """`forward` at a learning rate of each tensor, (tensors,), instead of the rule's own."""
        segments = segments or Segments((gradient.shape[0],), device=gradient.device)
        *own, numbers = state
        count = numbers[:, 0] + 1
        rows = tuple(each[:, 0] if each.shape[1] == 1 else each.t() for each in own)
        update, after = self._method.step(gradient, rows, Now(count, rate, segments))
        kept = torch.stack((count, numbers[:, 1]), dim=1)
        return update, (*(each[:, None] if each.dim() == 1 else each.t() for each in after), kept)

    def _rate(self, numbers: Tensor) -> Tensor:
        """The learning rate of the step that comes, (tensors,)."""
        done = (numbers[:, 0] / numbers[:, 1].clamp(min=1)).clamp(max=1)
        factors = {
            "constant": torch.ones_like(done),
            "linear": 1 - done,
            "cosine": (1 + torch.cos(math.pi * done)) / 2,
        }
        return self.settings.learning_rate * factors[self.settings.schedule]

    def config(self) -> dict[str, object]:
        """`kind` and the settings."""
        return self.settings.plain()

    def initialise(self, generator: torch.Generator) -> None:
        """It has no weights."""
