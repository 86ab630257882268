"""`Chosen`: the coordinates at which the gradient of a rule's weights looks."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Chosen(NamedTuple):
    """places: (chosen,) int64, rising; weights: (chosen,) how much each counts, one over the chance to be chosen"""

    places: Tensor
    weights: Tensor

    def within(self, block: slice, coordinates: int) -> Chosen:
        """Those in a block of coordinates, counted from its start."""
        start, stop, _ = block.indices(coordinates)
        here = (self.places >= start) & (self.places < stop)
        return Chosen(self.places[here] - start, self.weights[here])
