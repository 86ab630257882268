"""How a core's outputs become an update. Heads have no weights: those of the last layer belong to the core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor


@final
@dataclass(frozen=True)
class Linear:
    """The output itself, times `scale`: (coordinates,) -> (coordinates,)."""

    scale: float

    def update(self, output: Tensor) -> Tensor:
        return self.scale * output


@final
@dataclass(frozen=True)
class Tanh:
    """The output's tanh, times `scale`: (coordinates,) -> (coordinates,). No step is longer than `scale`."""

    scale: float

    def update(self, output: Tensor) -> Tensor:
        return self.scale * output.tanh()


@final
@dataclass(frozen=True)
class DirectionMagnitude:
    """scale * exp(magnitude) * sum of coefficient * direction: how far, apart from where to.

    The magnitude is held within bounds, see `bounded_exp`.

    scale: what a coefficient of 1 and a magnitude of 0 move along a direction of length 1
    directions: how many there are to choose from
    """

    scale: float
    directions: int

    @property
    def outputs(self) -> int:
        """What the core has to put out for a coordinate: a coefficient for each direction, and the magnitude last."""
        return self.directions + 1

    def update(self, outputs: Tensor, directions: Tensor) -> Tensor:
        """(coordinates, outputs), (coordinates, directions) -> (coordinates,)."""
        along = (outputs[:, :-1] * directions).sum(dim=1)
        return self.scale * bounded_exp(outputs[:, -1]) * along


def bounded_exp(magnitude: Tensor) -> Tensor:
    """exp of a magnitude between -7 and 5, and of the nearer bound beyond: from a thousandth to 148 times the usual."""
    return magnitude.clamp(-7, 5).exp()
