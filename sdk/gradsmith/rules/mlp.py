"""A small network for each coordinate that weighs directions: the gradient and its running averages."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradsmith.rules.base import Rule, Segments, State, planned
from gradsmith.rules.chosen import Chosen
from gradsmith.rules.configs import MLPConfig
from gradsmith.rules.dense import Dense, draw_hidden
from gradsmith.rules.features import Features
from gradsmith.rules.heads import DirectionMagnitude
from gradsmith.rules.pieces import Combination


@final
class MLPRule(Rule):
    """`layers` ELU layers of `hidden_size` units over named features; a head with a direction and a magnitude.

    The core puts out a coefficient for each direction among the features, and the logarithm of the length. 1,327
    weights and 24 bytes of memory for each coordinate at the defaults; 845 and 20 with the momenta alone, which needs
    no other coordinate.

    The update is differentiable in the weights, and in the gradient and the momenta as `Features` says, through the
    directions; the network's inputs count as constants (decision 0070).

    settings: what each of them means and may be is told by `MLPConfig`
    """

    kind: ClassVar[str] = MLPConfig.kind
    settings: MLPConfig

    def __init__(self, settings: MLPConfig | None = None) -> None:
        super().__init__()
        self.settings = settings or MLPConfig()
        self.features = Features(Combination.of(self.settings.input), self.settings.p)
        self.coordinatewise = not self.features.combination.of_tensors
        self.of_tensors = int(self.features.combination.of_tensors)
        self.rests = not self.coordinatewise
        self._head = DirectionMagnitude(self.settings.output_scale, self.features.directions)
        widths = [self.features.width] + [self.settings.hidden_size] * self.settings.layers
        self.layers = nn.ModuleList(map(Dense, widths[:-1], widths[1:]))
        self.readout = Dense(widths[-1], self._head.outputs)

    def initial_state(
        self,
        coordinates: int,
        *,
        tensors: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> State:
        """Zeros, as `Features` has them."""
        return self.features.initial_state(coordinates, tensors, dtype, device)

    def plan(self, state: State, steps: int | None) -> State:
        """See `Rule.plan`."""
        return planned(self, state, steps) if self.settings.knows_steps else state

    def forward(
        self, gradient: Tensor, state: State, segments: Segments | None = None, chosen: Chosen | None = None
    ) -> tuple[Tensor, State]:
        """One step for all coordinates; see `Rule.forward`.

        chosen: the coordinates from which the weights learn, None for all. The update is the same, and so are its
        derivatives by the gradient and the state, for the network sees neither.
        """
        reading = self.features.read(gradient, state, segments)
        signal = reading.features.detach().t()  # (N, features)
        if chosen is None:
            outputs = self._outputs(signal)
        else:
            with torch.no_grad():
                outputs = self._outputs(signal)
            own = self._outputs(signal[chosen.places])
            outputs = outputs.index_add(0, chosen.places, (own - own.detach()) * chosen.weights[:, None])  # adds zeros
        update = self._head.update(outputs, reading.directions.t())
        return update, reading.remembering(update)

    def _outputs(self, signal: Tensor) -> Tensor:
        """(n, features) -> (n, directions + 1)."""
        for layer in self.layers:
            signal = functional.elu(layer(signal))  # (n, H)
        outputs: Tensor = self.readout(signal)
        return outputs

    def config(self) -> dict[str, object]:
        """`kind` and the settings."""
        return self.settings.plain()

    def initialise(self, generator: torch.Generator) -> None:
        """Hidden layers as PyTorch's own, U(-1/sqrt(inputs), 1/sqrt(inputs)); the read-out ignores them at first, so
        that every fresh rule is Adam with the learning rate `output_scale` and betas (0.9, 0.99)."""
        draw_hidden(self.layers, generator)
        self.readout.reset(self.features.usual)
