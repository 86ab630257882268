"""A small network for each coordinate that weighs directions: the gradient and its running averages."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradsmith.rules.base import Rule, Segments, State
from gradsmith.rules.configs import MLPConfig
from gradsmith.rules.dense import Dense, draw_hidden
from gradsmith.rules.heads import DirectionMagnitude
from gradsmith.rules.inputs import Momenta

MOMENTA, SQUARES = (0.5, 0.9, 0.97), 0.99
"""Decays of the running averages of gradients and of their squares."""

_USUAL = 2  # the direction that a fresh rule goes against: the average with decay 0.9, after the gradient and 0.5


@final
class MLPRule(Rule):
    """`layers` ELU layers of `hidden_size` units over momentum features; a head with a direction and a magnitude.

    The features are the directions too: g / s and m / s for each average m, with s the root of the running mean square.
    The core puts out a coefficient for each of the four, and the logarithm of the length. 845 weights at the defaults.

    settings: what each of them means and may be is told by `MLPConfig`
    """

    kind: ClassVar[str] = MLPConfig.kind
    coordinatewise = True
    settings: MLPConfig

    def __init__(self, settings: MLPConfig | None = None) -> None:
        super().__init__()
        self.settings = settings or MLPConfig()
        self.features = Momenta(MOMENTA, SQUARES)
        self._head = DirectionMagnitude(self.settings.output_scale, self.features.width)
        widths = [self.features.width] + [self.settings.hidden_size] * self.settings.layers
        self.layers = nn.ModuleList(map(Dense, widths[:-1], widths[1:]))
        self.readout = Dense(widths[-1], self._head.outputs)

    def initial_state(
        self,
        coordinates: int,
        *,
        tensors: int = 1,  # noqa: ARG002
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> State:
        """Zeros: three averages, the average of squares, and the number of steps, each (coordinates, width)."""
        return self.features.initial_state(coordinates, dtype, device)

    def forward(
        self,
        gradient: Tensor,
        state: State,
        segments: Segments | None = None,  # noqa: ARG002  coordinates do not see one another
    ) -> tuple[Tensor, State]:
        """One step for all coordinates; see `Rule.forward`."""
        directions, state = self.features.read(gradient, state)  # (N, 4)
        signal = directions
        for layer in self.layers:
            signal = functional.elu(layer(signal))  # (N, H)
        return self._head.update(self.readout(signal), directions), state

    def config(self) -> dict[str, object]:
        """`kind` and the settings."""
        return self.settings.plain()

    def initialise(self, generator: torch.Generator) -> None:
        """Hidden layers as PyTorch's own, U(-1/sqrt(inputs), 1/sqrt(inputs)); the read-out ignores them at first, so
        that every fresh rule is Adam with the learning rate `output_scale` and betas (0.9, 0.99)."""
        draw_hidden(self.layers, generator)
        self.readout.reset(_USUAL)
