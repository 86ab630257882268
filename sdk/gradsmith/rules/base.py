"""What every rule is: a pure, coordinate-indexed map from gradients to updates, with weights of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from gradsmith.errors import MissingDependency

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingDependency(
        "gradsmith's rules need PyTorch, which is not installed. Run this in a checkout of Gradsmith: "
        "pip install './sdk[torch]'"
    ) from error
from torch import Tensor, nn

State = tuple[Tensor, ...]
"""A rule's memory. Every tensor is (coordinates, width), so that `tensor[a:b]` is the memory of coordinates a..b."""


class Rule(nn.Module, ABC):
    """The only base class that rules have; a rule is final. To vary one, wrap it.

    kind: the name under which `gradsmith.rules.build` and the weights file know the rule
    coordinatewise: True when coordinates are independent given the gradient, so that any block of coordinates
        may be run alone (the trainer replays blocks)
    """

    kind: ClassVar[str]
    coordinatewise: ClassVar[bool]

    @abstractmethod
    def initial_state(
        self, coordinates: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> State:
        """The memory before the first step; each tensor is (coordinates, width)."""

    @abstractmethod
    def forward(self, gradient: Tensor, state: State, segments: Tensor | None = None) -> tuple[Tensor, State]:
        """One step: `(coordinates,)` gradient -> `(coordinates,)` update, and the next memory.

        The update is already scaled: `theta_next = theta + update`. The gradient counts as a constant (no second
        derivatives); the result is differentiable in the rule's weights and in the state. Nothing is changed in
        place. `segments` holds the index of each coordinate's task, for rules that average over a task; None: one task.
        """

    @abstractmethod
    def config(self) -> dict[str, object]:
        """Kind and settings, as plain JSON values: `build(rule.config())` has the same shape as `rule`."""

    @abstractmethod
    def initial_bound(self) -> float:
        """Starting weights are uniform between minus and plus this."""
