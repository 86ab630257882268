"""What every backend is: the rule's step, and the gradient of a window of steps with respect to the rule's weights."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from gradsmith.rules import Rule

Memory = tuple[Tensor, ...]
"""What a backend keeps of the rule's state, in a layout of its own; it is opaque to everybody else."""


class Backend(Protocol):
    """Every backend computes the same functions; tests hold them equal."""

    name: str

    def initial_memory(self, rule: Rule, coordinates: int, dtype: torch.dtype, device: torch.device) -> Memory:
        """The rule's state before the first step."""

    def for_window(self, coordinates: int, steps: int) -> Backend:
        """The backend for one window: what its `steps` steps leave may make its `window_gradient` cheaper. Only one
        window's at a time is to be used."""

    def step(self, rule: Rule, theta: Tensor, gradient: Tensor, memory: Memory, segments: Tensor | None) -> Memory:
        """One inner step: `theta` (coordinates,) moves in place, the next memory is returned. The one that was given
        may be overwritten: it is not to be used again."""

    def kept(self, memory: Memory) -> Memory:
        """`memory` as it is now, whatever later steps do."""

    def window_gradient(self, rule: Rule, snapshot: Memory, G: Tensor, D: Tensor, segments: Tensor | None) -> Tensor:
        """d/d(weights) of sum_t <D[t], update_t>, flat, in the order of `rule.parameters()`.

        snapshot: the rule's memory before the window
        G, D: (steps, coordinates), the gradients that entered the rule and the weights of its updates
        """
