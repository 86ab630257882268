"""Coordinates that have never had a gradient stay where they are, and remember nothing."""

from __future__ import annotations

from torch import Tensor

from gradsmith.rules.inputs import State


def resting(gradient: Tensor, before: State, update: Tensor, memory: State) -> tuple[Tensor, State]:
    """The step, but for coordinates that have never had a gradient (this one is zero, and so is all of their memory):
    they do not move and remember nothing. Padding rows, unused embeddings and pruned weights stay as they are.

    before, memory: what is remembered of coordinates, (coordinates, width) each
    """
    untouched = gradient == 0
    for tensor in before:
        untouched &= (tensor == 0).all(dim=1)
    if not before:  # without a memory nobody knows
        return update, memory
    return update.masked_fill(untouched, 0), tuple(tensor.masked_fill(untouched[:, None], 0) for tensor in memory)
