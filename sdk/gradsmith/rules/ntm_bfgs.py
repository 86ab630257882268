"""NTM-BFGS (Andrychowicz et al. 2016, appendix): LSTM controllers that share a matrix, as BFGS has one.

Every coordinate runs the same controller. What the heads of all coordinates put out together are vectors, by which a
matrix is read (multiplied with) and written (an outer product is added). N is the number of coordinates, n that of one
task, H the hidden size.
"""

from __future__ import annotations

import math
from typing import ClassVar, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradsmith.errors import StateMismatch, TooManyCoordinates
from gradsmith.rules.base import Rule, Segments, State, draw_uniform
from gradsmith.rules.cells import LSTMLayer, averaged
from gradsmith.rules.configs import NTMBFGSConfig
from gradsmith.rules.inputs import stateless
from gradsmith.rules.resting import resting


@final
class NTMBFGSRule(Rule):
    """One step, with x the input of a coordinate's gradient, h the top layer's hidden state and M the task's matrix:

    1. every read head puts out r = key [x, h_before], and reads i = M r
    2. the LSTM layers, with `averaging` global averaging cells each, see [x, i] and give h
    3. every write head puts out a = left h and b = right h, and M becomes M + a b^T
    4. the update is output_scale (readout h + sum over the read heads of result M r)

    M is the identity at first, and BFGS's is its estimate of the inverse Hessian. The paper hands i to the controller
    at the following step; here the same step sees it, and reads again after it has written, so that a step of BFGS is
    one step of the rule (decision 0101).

    The memory is (h_1, c_1, ..., h_layers, c_layers), each (N, H); M less the identity, (N, memory_size), of which a
    task's coordinate has a row; and each coordinate's place in its task, from 1, (N, 1): columns of M are places, so a
    step with other coordinates than those before is an error. What never had a gradient stays and remembers nothing.

    Everything is differentiable. Raises TooManyCoordinates where a task has more coordinates than memory_size.

    settings: what each of them means and may be is told by `NTMBFGSConfig`
    """

    kind: ClassVar[str] = NTMBFGSConfig.kind
    coordinatewise = False
    rests = True
    settings: NTMBFGSConfig

    def __init__(self, settings: NTMBFGSConfig | None = None) -> None:
        super().__init__()
        self.settings = own = settings or NTMBFGSConfig()
        self.input = stateless(own.input, own.p)
        widths = [self.input.width + own.read_heads] + [own.hidden_size] * (own.layers - 1)
        self.layers = nn.ModuleList(LSTMLayer(width, own.hidden_size) for width in widths)

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*shape, dtype=torch.float32))

        self.key_weight = zeros(own.read_heads, self.input.width + own.hidden_size)
        self.left_weight, self.left_bias = zeros(own.write_heads, own.hidden_size), zeros(own.write_heads)
        self.right_weight, self.right_bias = zeros(own.write_heads, own.hidden_size), zeros(own.write_heads)
        self.readout_weight, self.readout_bias = zeros(own.hidden_size), zeros(1)
        self.result_weight = zeros(own.read_heads)

    def initial_state(
        self,
        coordinates: int,
        *,
        tensors: int = 1,  # noqa: ARG002
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> State:
        """Zeros; see the class for their meaning."""
        own = self.settings
        hidden = tuple(
            torch.zeros(own.hidden_size, coordinates, dtype=dtype, device=device).t() for _ in range(2 * own.layers)
        )
        row = torch.zeros(coordinates, own.memory_size, dtype=dtype, device=device)
        return (*hidden, row, torch.zeros(coordinates, 1, dtype=dtype, device=device))

    def forward(self, gradient: Tensor, state: State, segments: Segments | None = None) -> tuple[Tensor, State]:
        """One step for all coordinates; see `Rule.forward`."""
        own = self.settings
        *hidden, written, place = state
        tasks = 1 if segments is None else segments.count
        n = gradient.shape[0] // tasks
        places = self._places(n, tasks, place)

        def by_task(rows: Tensor) -> Tensor:
            """(heads, N) -> (tasks, n, heads)."""
            return rows.view(-1, tasks, n).permute(1, 2, 0)

        def by_coordinate(columns: Tensor) -> Tensor:
            """(tasks, n, heads) -> (heads, N)."""
            return columns.permute(2, 0, 1).reshape(columns.shape[2], -1)

        features = self.input.read(gradient, ())[0].t()  # (features, N)
        keys = by_task(self.key_weight @ torch.cat((features, hidden[-2].t())))  # (tasks, n, read heads)
        matrix = written.reshape(tasks, n, -1)[:, :, :n]  # M less the identity
        found = keys + matrix @ keys
        signal = torch.cat((features, by_coordinate(found)))
        after: list[Tensor] = []
        for layer, before, cell in zip(self.layers, hidden[0::2], hidden[1::2], strict=True):
            signal, cell = layer(signal, before.t(), cell.t().contiguous())  # (H, N)
            signal = averaged(signal, own.averaging, segments)
            after += (signal.t(), cell.t())
        left = by_task(torch.addmm(self.left_bias[:, None], self.left_weight, signal))  # (tasks, n, write heads)
        right = by_task(torch.addmm(self.right_bias[:, None], self.right_weight, signal)).transpose(1, 2)
        results = by_coordinate(found + left @ (right @ keys))  # (read heads, N): after writing
        written = written + functional.pad(left @ right, (0, own.memory_size - n)).reshape(written.shape)
        update = own.output_scale * (self.readout_weight @ signal + self.readout_bias + self.result_weight @ results)
        return resting(gradient, state, update, (*after, written, places))

    def _places(self, n: int, tasks: int, before: Tensor) -> Tensor:
        """Each coordinate's place in its task, (N, 1). Raises TooManyCoordinates, and StateMismatch where one has
        moved."""
        most = self.settings.memory_size
        if n > most:
            raise TooManyCoordinates(
                f"a rule of kind ntm_bfgs with memory_size {most} is to move {n} coordinates together; each takes a "
                f"row and a column of its matrix. Give it {most} at most, or train one with a larger memory_size"
            )
        places = torch.arange(1, n + 1, dtype=before.dtype, device=before.device).repeat(tasks)[:, None]
        if bool(((before != 0) & (before != places)).any()):
            raise StateMismatch(
                "a rule of kind ntm_bfgs is to move other coordinates than in the step before: its matrix has a column "
                "for each. Give every parameter a gradient in every step, zeros where it has none, or start with a "
                "fresh optimizer"
            )
        return places

    def config(self) -> dict[str, object]:
        """`kind` and the settings, `forget_bias` left out."""
        return self.settings.plain()

    def initialise(self, generator: torch.Generator) -> None:
        """Like `LSTMRule.initialise`; the left write heads are zero, so that M is the identity until they have learned
        something: outer products of noise would grow with every step."""
        draw_uniform(self, 1 / math.sqrt(self.settings.hidden_size), generator)
        with torch.no_grad():
            for layer in self.layers:
                cast(LSTMLayer, layer).remember(self.settings.forget_bias)
            self.left_weight.zero_()
            self.left_bias.zero_()
