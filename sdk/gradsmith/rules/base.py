"""What every rule is: a pure, coordinate-indexed map from gradients to updates, with weights of its own."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
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

from gradsmith.rules.configs import RuleConfig
from gradsmith.rules.inputs import State as State
from gradsmith.rules.origin import Origin
from gradsmith.rules.segments import Segments as Segments


class Rule(nn.Module, ABC):
    """The only base class that rules have; a rule is final. To vary one, wrap it.

    A rule is an input, a core and a head: the input turns gradients into features (`gradsmith.rules.inputs`), the core
    has the weights, and the head makes an update of what the core puts out (`gradsmith.rules.heads`).

    kind: the name under which `gradsmith.rules.build` and the weights file know the rule
    coordinatewise: True when coordinates are independent given the gradient, so that any block of coordinates
        may be run alone (the trainer replays blocks)
    of_tensors: how many of the memory's tensors, its last ones, have a row for each tensor of the model instead of one
        for each coordinate; 0 for a rule that is coordinatewise
    of_sides: how many of the memory's tensors, those before the last `of_tensors`, have for each tensor of the model
        as many rows as `gradsmith.rules.shapes.side_numbers` says; only `memory_for` gives them any
    across_groups: True when the parameters of all groups of an optimizer are one task to it; else each group is one
    rests: True when the rule itself leaves a coordinate alone, and its memory zero, that has never had a gradient other
        than zero; for other rules `gradsmith.LearnedOptimizer` sees to it
    origin: what the file says that it was loaded from; None of a rule that was made here
    """

    kind: ClassVar[str]
    coordinatewise: bool
    of_tensors: int = 0
    of_sides: int = 0
    across_groups: bool = False
    rests: bool = False
    settings: RuleConfig
    origin: Origin | None = None

    @abstractmethod
    def initial_state(
        self,
        coordinates: int,
        *,
        tensors: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> State:
        """The memory before the first step; each tensor is (coordinates, width), or (tensors, width) for the last
        `of_tensors`.

        tensors: how many tensors these coordinates are, through all tasks; coordinatewise rules do not ask
        dtype: what the numbers of coordinates are kept in; those of tensors are float32 at least, for they are few,
            and a count of steps must be exact
        """

    def memory_for(
        self,
        shapes: Sequence[Sequence[int]],
        tasks: int = 1,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> State:
        """`initial_state` for tensors of these shapes, in each of so many tasks."""
        coordinates = tasks * sum(math.prod(shape) for shape in shapes)
        return self.initial_state(coordinates, tensors=tasks * len(shapes), dtype=dtype, device=device)

    def plan(self, state: State, steps: int | None) -> State:  # noqa: ARG002
        """The memory before the first step of a run of so many steps, from `initial_state`'s. Raises ValueError where
        the rule needs them and they are not known."""
        return state

    def shrinkage(self, state: State) -> Tensor | None:  # noqa: ARG002
        """The share of itself that each tensor's theta loses in the step that comes, before the update is added:
        (tensors,), or None for nothing. A rule sees no theta, so whoever moves it does this too."""
        return None

    @abstractmethod
    def forward(self, gradient: Tensor, state: State, segments: Segments | None = None) -> tuple[Tensor, State]:
        """One step: `(coordinates,)` gradient -> `(coordinates,)` update, and the next memory.

        The update is already scaled: `theta_next = theta + update`. The result is differentiable in the rule's
        weights, in the state and in the gradient, with finite derivatives where a gradient is zero; the rule's class
        says what it holds constant, and whoever takes gradients for constants passes them without a graph. Nothing is
        changed in place. `segments`: for rules that look across coordinates; None: all are one tensor of one task.
        """

    @abstractmethod
    def config(self) -> dict[str, object]:
        """Kind and settings, as plain JSON values: `build(rule.config())` computes what `rule` does, given its
        weights. Settings that matter for fresh weights alone are not in it."""

    @abstractmethod
    def initialise(self, generator: torch.Generator) -> None:
        """Draw starting weights, in place. One seed gives one rule, whatever dtype and device the rule is on."""


def draw_uniform(module: nn.Module, bound: float, generator: torch.Generator) -> None:
    """Fill all weights of a rule, or of a part of it, from U(-bound, bound): in float32 on the generator's device, in
    the order of their names."""
    with torch.no_grad():
        for _, parameter in sorted(module.named_parameters()):
            draw = torch.rand(parameter.shape, generator=generator, device=generator.device, dtype=torch.float32)
            parameter.copy_((2 * draw - 1) * bound)


def planned(rule: Rule, state: State, steps: int | None) -> State:
    """`plan` for a rule whose last tensor of memory has the number of planned steps in its last column."""
    if steps is None:
        if rule.settings.knows_steps:
            raise ValueError(
                f"this rule has to know how many steps a run is going to have ({rule.settings.in_words()}). Pass "
                f"steps=N to LearnedOptimizer: as many as you will call step()"
            )
        return state
    numbers = state[-1].clone()
    numbers[:, -1] = steps
    return (*state[:-1], numbers)
