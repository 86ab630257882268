"""What a hand-made optimizer is made of, and what its step is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradsmith.rules.segments import Segments

Remembered = tuple[Tensor, ...]


@dataclass(frozen=True)
class Now:
    """Where a run is. count: steps of each tensor, this one included, and rate: its learning rate, both (tensors,)."""

    count: Tensor
    rate: Tensor
    segments: Segments

    def rates(self, like: Tensor) -> Tensor:
        """The learning rate for each coordinate."""
        return self.segments.spread(self.rate).to(like.dtype)


def together(each: Sequence[Tensor] | Tensor, places: Sequence[int]) -> Tensor:
    """What is at these places, (tasks, ...) each, one after the other."""
    return each[places[0]] if len(places) == 1 else torch.cat([each[place] for place in places])


def apart(values: Tensor, places: Sequence[int], tasks: int) -> Sequence[Tensor]:
    """The reverse of `together`: what is at each of the places, (tasks, its size)."""
    flat = values.flatten(1)
    return (flat,) if len(places) == 1 else torch.split_with_sizes(flat, [tasks] * len(places))


@dataclass(frozen=True)
class Method:
    """A hand-made optimizer.

    step: the gradient, what is remembered, and where the run is -> the update, and what is remembered then. Everything
        remembered is (coordinates,) or (n, coordinates), but for the last `of_sides`, which are (numbers of sides,).
        Nothing is changed in place
    widths: how many numbers of a coordinate there are in each thing remembered; empty: one in each
    decay: the share of itself, for each unit of the learning rate, that theta loses in a step
    of_sides: see `gradsmith.rules.Rule`
    waits: its first step moves nothing
    across_groups: see `gradsmith.rules.Rule`
    """

    step: Callable[[Tensor, Remembered, Now], tuple[Tensor, Remembered]]
    widths: tuple[int, ...] = ()
    decay: float = 0.0
    of_sides: int = 0
    waits: bool = False
    across_groups: bool = False
