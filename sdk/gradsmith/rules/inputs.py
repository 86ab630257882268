"""How a gradient enters a rule that remembers nothing of it but what its network does; see also `features`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

State = tuple[Tensor, ...]
"""A memory. Every tensor is (coordinates, width), so that `tensor[a:b]` is the memory of coordinates a..b."""


class Input(ABC):
    """Turns gradients into features, (coordinates,) -> (coordinates, width).

    width: features of a coordinate
    """

    width: int

    @abstractmethod
    def read(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """The features of this step, and the state for the next. Nothing is changed in place."""


@final
class Raw(Input):
    """The gradient as it is."""

    width = 1

    def read(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """(coordinates,) -> (coordinates, 1)."""
        return gradient[:, None], state


@final
class LogSign(Input):
    """(log|g| / p, sign g) where |g| >= e^-p, and (-1, e^p g) elsewhere (Andrychowicz et al. 2016, appendix A).

    Gradients span many orders of magnitude; this keeps both their scale and their sign within a few units. A zero
    gradient gives (-1, 0).
    """

    width = 2

    def __init__(self, p: float) -> None:
        self.p = p
        self._inverse_threshold = math.exp(p)

    def read(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """(coordinates,) -> (coordinates, 2)."""
        # Both columns meet at |g| = e^-p: log|g| / p reaches -1, and e^p g reaches +-1, exactly there.
        # The least normal number in place of 0 changes no value, and keeps 0 times infinity out of the derivative.
        least = torch.finfo(gradient.dtype).tiny
        magnitude = (gradient.abs().clamp(min=least).log() / self.p).clamp(min=-1.0)
        direction = (gradient * self._inverse_threshold).clamp(-1.0, 1.0)
        # Stacked feature by feature, then seen as (coordinates, 2): the LSTM reads whole feature rows.
        return torch.stack((magnitude, direction)).t(), state


INPUTS = ("log_sign", "raw")
"""Names of the inputs without a state, as the lstm rule's `input` has them."""


def stateless(name: str, p: float) -> Input:
    """The input of this name, one of `INPUTS`; p is the threshold's exponent of log_sign."""
    return LogSign(p) if name == "log_sign" else Raw()
