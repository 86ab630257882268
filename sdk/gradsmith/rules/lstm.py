"""The coordinatewise LSTM of Andrychowicz et al. 2016, section 2.1 (arXiv 1606.04474).

Every coordinate runs the same small network with a memory of its own. H is the hidden size, N the number of
coordinates.

Tensors are kept feature-major inside, (features, N): each gate is then one contiguous block, which makes a step
1.4 times as fast on a CPU as the usual (N, features). At the border they are transposed views, (N, features).
"""

from __future__ import annotations

import math
from typing import ClassVar, cast, final

import torch
from torch import Tensor, nn

from gradsmith.rules.base import Rule, Segments, State, draw_uniform, planned
from gradsmith.rules.cells import LSTMLayer, averaged
from gradsmith.rules.configs import LSTMConfig
from gradsmith.rules.features import Features
from gradsmith.rules.heads import DirectionMagnitude, Linear, Tanh
from gradsmith.rules.inputs import stateless
from gradsmith.rules.pieces import Combination
from gradsmith.rules.resting import resting

_PUBLISHED = (("log_sign",), ("raw",))


@final
class LSTMRule(Rule):
    """`layers` LSTM layers of `hidden_size` units and a linear read-out to one number, times `output_scale`.

    5,141 weights at the defaults. The state is (h_1, c_1, ..., h_layers, c_layers), each (N, H). Beside the paper's
    inputs and head there are those of `Features` and `gradsmith.rules.heads`; what they remember follows in the state.

    The first `averaging` cells of each layer are global averaging cells: their activation is the mean over all
    coordinates of a task, for the next layer and for the next step. Such a rule looks across coordinates, and leaves
    those alone itself that have never had a gradient; they count in the means.

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
        self.coordinatewise = not named.of_tensors and not self.settings.averaging
        self.rests = self.settings.averaging > 0
        self.of_tensors = int(named.of_tensors)
        self._direction = DirectionMagnitude(self.output_scale, named.directions)
        self._head = Tanh(self.output_scale) if self.settings.head == "tanh" else Linear(self.output_scale)
        widths = [self.features.width] + [self.hidden_size] * (self.settings.layers - 1)
        self.layers = nn.ModuleList(LSTMLayer(width, self.hidden_size) for width in widths)
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
            signal = averaged(signal, self.settings.averaging, segments)
            next_state += (signal.t(), cell.t())
        if self._has_directions:
            directions = gradient[:, None] if reading is None else reading.directions.t()
            outputs = torch.addmm(self.readout_bias, signal.t(), self.readout_weight.t())  # (N, directions + 1)
            update = self._direction.update(outputs, directions)
        else:
            update = self._head.update(torch.mv(signal.t(), self.readout_weight) + self.readout_bias)  # (H, N) -> (N,)
        memory = (*next_state, *(() if reading is None else reading.remembering(update)))
        if not self.rests:
            return update, memory
        wide = len(memory) - self.of_tensors
        update, kept = resting(gradient, state[:wide], update, memory[:wide])
        return update, (*kept, *memory[wide:])

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
                cast(LSTMLayer, layer).remember(self.settings.forget_bias)
            if self._has_directions:
                self.readout_weight.zero_()
                self.readout_bias.zero_()
                self.readout_bias[Features(Combination.of(self.settings.input)).usual] = -1.0
