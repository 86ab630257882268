"""What every rule is: a pure, coordinate-indexed map from gradients to updates, with weights of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
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


@dataclass(frozen=True)
class Segments:
    """Which coordinates of an axis belong together: indices, (coordinates,) int64.

    tasks: the task of each coordinate
    tensors: its tensor, such as the weights of a layer or a bias, counted through all tasks
    """

    tasks: Tensor
    tensors: Tensor

    @classmethod
    def repeated(cls, sizes: Sequence[int], coordinates: int, device: torch.device | str = "cpu") -> Segments:
        """Tasks one after another, each with tensors of these sizes."""
        ends = torch.tensor(list(accumulate(sizes)), device=device)
        places = torch.arange(coordinates, device=device)
        tasks = places // ends[-1]
        within = torch.searchsorted(ends, places - tasks * ends[-1], right=True)
        return cls(tasks, tasks * len(sizes) + within)


class Rule(nn.Module, ABC):
    """The only base class that rules have; a rule is final. To vary one, wrap it.

    A rule is an input, a core and a head: the input turns gradients into features (`gradsmith.rules.inputs`), the core
    has the weights, and the head makes an update of what the core puts out (`gradsmith.rules.heads`).

    kind: the name under which `gradsmith.rules.build` and the weights file know the rule
    coordinatewise: True when coordinates are independent given the gradient, so that any block of coordinates
        may be run alone (the trainer replays blocks)
    """

    kind: ClassVar[str]
    coordinatewise: ClassVar[bool]
    settings: RuleConfig

    @abstractmethod
    def initial_state(
        self, coordinates: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> State:
        """The memory before the first step; each tensor is (coordinates, width)."""

    @abstractmethod
    def forward(self, gradient: Tensor, state: State, segments: Segments | None = None) -> tuple[Tensor, State]:
        """One step: `(coordinates,)` gradient -> `(coordinates,)` update, and the next memory.

        The update is already scaled: `theta_next = theta + update`. The result is differentiable in the rule's
        weights, in the state and in the gradient, with finite derivatives where a gradient is zero; whoever takes
        gradients for constants passes them without a graph. Nothing is changed in place. `segments`: for rules that
        look across coordinates; None: all are one tensor of one task.
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
