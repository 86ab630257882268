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

from gradsmith.errors import UnknownRule
from gradsmith.rules.base import Rule, State
from gradsmith.rules.features import FEATURES


@final
class LSTMRule(Rule):
    """`layers` LSTM layers of `hidden_size` units and a linear read-out to one number, times `output_scale`.

    5,141 weights at the defaults. The state is (h_1, c_1, ..., h_layers, c_layers), each (N, H).

    input: "log_sign" (appendix A, with threshold e^-p) or "raw"
    output_scale: theta changes by this much per unit of output; 0.1 for networks

    Raises UnknownRule when a setting is out of range.
    """

    kind: ClassVar[str] = "lstm"
    coordinatewise: ClassVar[bool] = True

    def __init__(
        self,
        *,
        hidden_size: int = 20,
        layers: int = 2,
        input: str = "log_sign",  # noqa: A002  the API's word
        p: float = 10.0,
        output_scale: float = 0.1,
    ) -> None:
        super().__init__()
        _require_integer("hidden_size", hidden_size, 65_536)
        _require_integer("layers", layers, 64)
        _require_positive("p", p, 80.0)
        _require_positive("output_scale", output_scale, 1e6)
        if input not in FEATURES:
            raise UnknownRule(f"unknown input {input!r} of an lstm rule; choose one of {', '.join(FEATURES)}")
        self.hidden_size = hidden_size
        self.input = input
        self.p = float(p)
        self.output_scale = float(output_scale)
        features, self._features = FEATURES[input]
        widths = [features] + [hidden_size] * (layers - 1)
        self.layers = nn.ModuleList(_Layer(width, hidden_size) for width in widths)
        self.readout_weight = nn.Parameter(torch.zeros(hidden_size, dtype=torch.float32))
        self.readout_bias = nn.Parameter(torch.zeros(1, dtype=torch.float32))

    def initial_state(
        self, coordinates: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
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
        segments: Tensor | None = None,  # noqa: ARG002  coordinates do not see one another
    ) -> tuple[Tensor, State]:
        """One step for all coordinates; see `Rule.forward`."""
        signal = self._features(gradient.detach(), self.p).t()  # (features, N)
        next_state: list[Tensor] = []
        for layer, hidden, cell in zip(self.layers, state[0::2], state[1::2], strict=True):
            # A copy only when the state came in another layout: the bits do not depend on the caller's strides.
            signal, cell = layer(signal, hidden.t(), cell.t().contiguous())  # (H, N)
            next_state += (signal.t(), cell.t())
        output = torch.mv(signal.t(), self.readout_weight) + self.readout_bias  # (H, N) -> (N,)
        return self.output_scale * output, tuple(next_state)

    def config(self) -> dict[str, object]:
        """`kind` and the arguments of the constructor."""
        return {
            "kind": self.kind,
            "hidden_size": self.hidden_size,
            "layers": len(self.layers),
            "input": self.input,
            "p": self.p,
            "output_scale": self.output_scale,
        }

    def initial_bound(self) -> float:
        """1 / sqrt(hidden_size)."""
        return 1 / math.sqrt(self.hidden_size)


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


def _require_integer(name: str, value: object, at_most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= at_most:
        raise UnknownRule(f"{name} of an lstm rule must be an integer from 1 to {at_most}, not {value!r}")


def _require_positive(name: str, value: object, at_most: float) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= at_most:
        raise UnknownRule(f"{name} of an lstm rule must be above 0 and at most {at_most:g}, not {value!r}")
