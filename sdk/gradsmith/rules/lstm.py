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

from gradsmith.rules.base import Rule, Segments, State, draw_uniform
from gradsmith.rules.configs import LSTMConfig
from gradsmith.rules.heads import Linear
from gradsmith.rules.inputs import stateless


@final
class LSTMRule(Rule):
    """`layers` LSTM layers of `hidden_size` units and a linear read-out to one number, times `output_scale`.

    5,141 weights at the defaults. The state is (h_1, c_1, ..., h_layers, c_layers), each (N, H).

    settings: what each of them means and may be is told by `LSTMConfig`
    """

    kind: ClassVar[str] = LSTMConfig.kind
    coordinatewise = True
    settings: LSTMConfig

    def __init__(self, settings: LSTMConfig | None = None) -> None:
        super().__init__()
        self.settings = settings or LSTMConfig()
        self.hidden_size = self.settings.hidden_size
        self.output_scale = self.settings.output_scale
        self.features = stateless(self.settings.input, self.settings.p)
        self._head = Linear(self.output_scale)
        widths = [self.features.width] + [self.hidden_size] * (self.settings.layers - 1)
        self.layers = nn.ModuleList(_Layer(width, self.hidden_size) for width in widths)
        self.readout_weight = nn.Parameter(torch.zeros(self.hidden_size, dtype=torch.float32))
        self.readout_bias = nn.Parameter(torch.zeros(1, dtype=torch.float32))

    def initial_state(
        self,
        coordinates: int,
        *,
        tensors: int = 1,  # noqa: ARG002
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> State:
        """Zeros: (h, c) for each layer, each (coordinates, hidden_size)."""
        return tuple(
            torch.zeros(self.hidden_size, coordinates, dtype=dtype, device=device).t()
            for _ in range(2 * len(self.layers))
        )

    def forward(
        self,
        gradient: Tensor,
        state: State,
        segments: Segments | None = None,  # noqa: ARG002  coordinates do not see one another
    ) -> tuple[Tensor, State]:
        """One step for all coordinates; see `Rule.forward`."""
        features, _ = self.features.read(gradient, ())
        signal = features.t()  # (features, N)
        next_state: list[Tensor] = []
        for layer, hidden, cell in zip(self.layers, state[0::2], state[1::2], strict=True):
            # A copy only when the state came in another layout: the bits do not depend on the caller's strides.
            signal, cell = layer(signal, hidden.t(), cell.t().contiguous())  # (H, N)
            next_state += (signal.t(), cell.t())
        output = torch.mv(signal.t(), self.readout_weight) + self.readout_bias  # (H, N) -> (N,)
        return self._head.update(output), tuple(next_state)

    def config(self) -> dict[str, object]:
        """`kind` and the settings, `forget_bias` left out."""
        return self.settings.plain()

    def initialise(self, generator: torch.Generator) -> None:
        """U(-1/sqrt(H), 1/sqrt(H)), PyTorch's own default for LSTMs, with `forget_bias` added to the forget gates'
        biases (Gers et al. 2000): with gates half closed a coordinate forgets its past in a few steps, and a learned
        momentum has to be found before it can pay off."""
        draw_uniform(self, 1 / math.sqrt(self.hidden_size), generator)
        with torch.no_grad():
            for layer in self.layers:
                forget = layer.get_parameter("bias")[self.hidden_size : 2 * self.hidden_size]
                forget += self.settings.forget_bias


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
