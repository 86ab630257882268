"""How a gradient enters a rule: objects with a width and, where they need one, a state of their own."""

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
    state_widths: numbers that it remembers of a coordinate, tensor by tensor; an input without a state has none
    counts: places of the tensors that count steps. They are float32 at least: 256 + 1 is 256 in bfloat16
    """

    width: int
    state_widths: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()

    def initial_state(self, coordinates: int, dtype: torch.dtype, device: torch.device | str) -> State:
        """Zeros, (coordinates, width) each."""
        exact = torch.promote_types(dtype, torch.float32)
        return tuple(
            torch.zeros(coordinates, width, dtype=exact if number in self.counts else dtype, device=device)
            for number, width in enumerate(self.state_widths)
        )

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


@final
class Momenta(Input):
    """The gradient and its running averages, each over the root of the running mean square.

    With m_b the running average of gradients with decay b and v that of their squares, both corrected for their start
    at zero as in Adam (Kingma and Ba 2015): g / s and m_b / s for each decay, where s = sqrt(v) + epsilon.

    decays: one of each momentum; square_decay: that of the squares
    state: the averages (coordinates, momenta), the average of squares and the number of steps, (coordinates, 1) each
    """

    counts = (2,)

    def __init__(self, decays: tuple[float, ...], square_decay: float, epsilon: float = 1e-8) -> None:
        self.decays = decays
        self.width = 1 + len(decays)
        self.state_widths = (len(decays), 1, 1)
        self._square_decay, self._epsilon = square_decay, epsilon

    def read(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """(coordinates,) -> (coordinates, 1 + momenta)."""
        averages, squares, count = state
        now = gradient[:, None]
        decays = torch.tensor(self.decays, dtype=gradient.dtype, device=gradient.device)
        count = count + 1
        averages = decays * averages + (1 - decays) * now
        squares = self._square_decay * squares + (1 - self._square_decay) * now * now
        begun, squares_begun = ((1 - decay**count).to(gradient.dtype) for decay in (decays, self._square_decay))
        least = torch.finfo(gradient.dtype).tiny  # the root's derivative at 0 is infinite
        size = (squares / squares_begun).clamp(min=least).sqrt() + self._epsilon
        return torch.cat((now, averages / begun), dim=1) / size, (averages, squares, count)


INPUTS = ("log_sign", "raw")
"""Names of the inputs without a state, as the lstm rule's `input` has them."""


def stateless(name: str, p: float) -> Input:
    """The input of this name, one of `INPUTS`; p is the threshold's exponent of log_sign."""
    return LogSign(p) if name == "log_sign" else Raw()
