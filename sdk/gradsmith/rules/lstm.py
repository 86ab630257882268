"""The coordinatewise LSTM of Andrychowicz et al. 2016, section 2.1 (arXiv 1606.04474).

Every coordinate runs the same small network with a memory of its own. H is the hidden size, N the number of
coordinates.

Tensors are kept feature-major inside, (features, N): each gate is then one contiguous block, which makes a step
1.4 times as fast on a CPU as the usual (N, features). At the border they are transposed views, (N, features).
"""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from gradsmith.rules.base import Rule, Segments, State, draw_uniform, planned
from gradsmith.rules.configs import LSTMConfig
from gradsmith.rules.features import Features
from gradsmith.rules.heads import DirectionMagnitude, Linear, Tanh
from gradsmith.rules.inputs import stateless
from gradsmith.rules.pieces import Combination

_PUBLISHED = (("log_sign",), ("raw",))


@final
class LSTMRule(Rule):
    """`layers` LSTM layers of `hidden_size` units and a linear read-out to one number, times `output_scale`.

    5,141 weights at the defaults. The state is (h_1, c_1, ..., h_layers, c_layers), each (N, H). Beside the paper's
    inputs and head there are those of `Features` and `gradsmith.rules.heads`; what they remember follows in the state.

    Everything is differentiable, the gradient's way through the network included, but for what `Features` holds.

    settings: what each of them means and may be is told by `LSTMConfig`
    """

    kind: ClassVar[str] = LSTMConfig.kind
    settings: LSTMConfig

    def __init__(self, settings: LSTMConfig | None = None) -> None:
        super().__init__()
        self.settings = settings or LSTMConfig()
        self.hidden_size = self.settings.hidden_size
        self.output_scale = self.settings.output_scale
        named = Combination.of(self.settings.input)
        self.features = (
            stateless(named.names[0], self.settings.p)
            if named.names in _PUBLISHED
            else Features(named, self.settings.p)
        )
        self.coordinatewise = not named.of_tensors
        self.of_tensors = int(named.of_tensors)
        self._direction = DirectionMagnitude(self.output_scale, named.directions)
        self._head = Tanh(self.output_scale) if self.settings.head == "tanh" else Linear(self.output_scale)
        widths = [self.features.width] + [self.hidden_size] * (self.settings.layers - 1)
        self.layers = nn.ModuleList(_Layer(width, self.hidden_size) for width in widths)
        outputs = (self._direction.outputs,) if self._has_directions else ()
        self.readout_weight = nn.Parameter(torch.zeros(*outputs, self.hidden_size, dtype=torch.float32))
        self.readout_bias = nn.Parameter(torch.zeros(outputs or 1, dtype=torch.float32))

    @property
    def _has_directions(self) -> bool:
        return self.settings.head == "direction_magnitude"

    def initial_state(
        self,
        coordinates: int,
        *,
        tensors: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> State:
        """Zeros: (h, c) for each layer, each (coordinates, hidden_size); then what the inputs remember."""
        own = tuple(
            torch.zeros(self.hidden_size, coordinates, dtype=dtype, device=device).t()
            for _ in range(2 * len(self.layers))
        )
        if isinstance(self.features, Features):
            return own + self.features.initial_state(coordinates, tensors, dtype, device)
        return own

    def plan(self, state: State, steps: int | None) -> State:
        """See `Rule.plan`."""
        return planned(self, state, steps) if self.settings.knows_steps else state

    def forward(self, gradient: Tensor, state: State, segments: Segments | None = None) -> tuple[Tensor, State]:
        """One step for all coordinates; see `Rule.forward`."""
        reading = None
        own, rest = state[: 2 * len(self.layers)], state[2 * len(self.layers) :]
        if isinstance(self.features, Features):
            reading = self.features.read(gradient, rest, segments)
            signal = reading.features  # (features, N)
        else:
            signal = self.features.read(gradient, ())[0].t()
        next_state: list[Tensor] = []
        for layer, hidden, cell in zip(self.layers, own[0::2], own[1::2], strict=True):
            # A copy only when the state came in another layout: the bits do not depend on the caller's strides.
            signal, cell = layer(signal, hidden.t(), cell.t().contiguous())  # (H, N)
            next_state += (signal.t(), cell.t())
        if self._has_directions:
            directions = gradient[:, None] if reading is None else reading.directions.t()
            outputs = torch.addmm(self.readout_bias, signal.t(), self.readout_weight.t())  # (N, directions + 1)
            update = self._direction.update(outputs, directions)
        else:
            update = self._head.update(torch.mv(signal.t(), self.readout_weight) + self.readout_bias)  # (H, N) -> (N,)
        return update, (*next_state, *(() if reading is None else reading.remembering(update)))

    def config(self) -> dict[str, object]:
        """`kind` and the settings, `forget_bias` left out."""
        return self.settings.plain()

    def initialise(self, generator: torch.Generator) -> None:
        """U(-1/sqrt(H), 1/sqrt(H)), PyTorch's own default for LSTMs, with `forget_bias` added to the forget gates'
        biases (Gers et al. 2000): with gates half closed a coordinate forgets its past in a few steps, and a learned
        momentum has to be found before it can pay off. A head with directions ignores the network at first, as that of
        the mlp rule does."""
        draw_uniform(self, 1 / math.sqrt(self.hidden_size), generator)
        with torch.no_grad():
            for layer in self.layers:
                forget = layer.get_parameter("bias")[self.hidden_size : 2 * self.hidden_size]
                forget += self.settings.forget_bias
            if self._has_directions:
                self.readout_weight.zero_()
                self.readout_bias.zero_()
                self.readout_bias[Features(Combination.of(self.settings.input)).usual] = -1.0


@final
class _Layer(nn.Module):
    """One LSTM layer with one bias per gate. Rows of `weight` are the gates in torch's order (input, forget,
    candidate, output), its columns the layer's input and then its hidden state."""

    def __init__(self, width: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.weight = nn.Parameter(torch.zeros(4 * hidden_size, width + hidden_size, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size, dtype=torch.float32))

    def forward(self, signal: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """(width, N), (H, N), (H, N) -> the next hidden state and cell, (H, N) each."""
        gates = torch.addmm(self.bias[:, None], self.weight, torch.cat((signal, hidden)))  # (4H, N)
        write, forget, candidate, show = gates.chunk(4)
        cell = torch.addcmul(forget.sigmoid() * cell, write.sigmoid(), _tanh(candidate))
        return show.sigmoid() * _tanh(cell), cell


def _tanh(x: Tensor) -> Tensor:
    """tanh(x) = 2 sigmoid(2x) - 1: torch's vectorised sigmoid is several times as fast on a CPU as its tanh."""
    return 2 * torch.sigmoid(2 * x) - 1
