"""`NativeKernel`: one LSTM rule's step and window gradient on the CPU, in float32, through the compiled library.

The state lives in blocks, (blocks, state_rows, BLOCK): BLOCK neighbouring coordinates side by side, feature-major;
`pack` and `unpack` change between it and the rule's own tuple of (coordinates, hidden). Coordinates are padded to
whole blocks inside; theta, G and D are not.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from gradsmith.rules.base import Rule, State
from gradsmith.rules.kernels.native.library import Library
from gradsmith.rules.kernels.native.pointers import require
from gradsmith.rules.kernels.native.tape import Tape
from gradsmith.rules.kernels.native.targets import AVX512_BF16, Target
from gradsmith.rules.lstm import LSTMRule


@final
class NativeKernel:
    """Steps and window gradients of LSTM rules of one configuration; made by `choose.native_kernel`.

    Results have the same bits for any number of threads. Safe to be used from several threads at once, on different
    states. Works on float32 tensors of the CPU only and records nothing for autograd.

    block: coordinates a block; target: the instruction set it was compiled for; threads: may be set at any time
    bfloat16: whether the factors of products are rounded to bfloat16; the sums are in float32 all the same
    """

    def __init__(self, rule: LSTMRule, loaded: Library, target: Target, *, threads: int = 1) -> None:
        self.config = rule.config()
        self.target = target
        self.block = loaded.block
        self.threads = threads
        self.bfloat16 = loaded.sizes.bfloat16
        self._library = self.library = loaded  # functions of its own: `gradsmith.axes.native` calls one
        self._p, self._scale = rule.settings.p, rule.output_scale
        sizes = {name: parameter.numel() for name, parameter in rule.named_parameters()}
        self._names = list(sizes)
        self._order = [f"layers.{level}.{part}" for level in range(len(rule.layers)) for part in ("weight", "bias")]
        self._order += ["readout_weight", "readout_bias"]
        self._hidden = self.hidden_size = rule.hidden_size
        self._tensors = 2 * len(rule.layers)
        self._places: dict[str, slice] = {}
        self._count = 0
        for name in self._order:
            self._places[name] = slice(self._count, self._count + sizes[name])
            self._count += sizes[name]

    @property
    def emulates(self) -> bool:
        """Whether its products of bfloat16 numbers are made of float32 ones, for want of instructions."""
        return self.bfloat16 and self.target != AVX512_BF16

    def weights(self, rule: Rule) -> Tensor:
        """The rule's present weights as the other methods want them; to be made again after each change of them.

        Raises ValueError when the rule is not of this kernel's configuration.
        """
        if rule.config() != self.config:
            raise ValueError(f"this kernel is for {self.config}, not for {rule.config()}; make one for that rule")
        named = dict(rule.named_parameters())
        flat = torch.cat([named[name].detach().reshape(-1) for name in self._order]).to("cpu", torch.float32)
        prepared = torch.empty(self._library.prepared_bytes, dtype=torch.uint8, device="cpu")
        self._library.prepare(flat.data_ptr(), self._p, self._scale, prepared.data_ptr())
        return prepared

    def initial_state(self, coordinates: int) -> Tensor:
        """The packed state before the first step: zeros, (blocks, state rows, block)."""
        shape = (-(-coordinates // self.block), self._tensors * self._hidden, self.block)
        return torch.zeros(shape, dtype=torch.float32, device="cpu")

    def pack(self, state: State) -> Tensor:
        """A rule's state, a tuple of (N, hidden), in blocks: (blocks, state rows, block)."""
        coordinates = state[0].shape[0]
        packed = self.initial_state(coordinates)
        rows = packed.new_zeros(packed.shape[1], packed.shape[0] * self.block)
        for number, memory in enumerate(state):
            rows[number * self._hidden : (number + 1) * self._hidden, :coordinates] = memory.detach().t()
        packed.copy_(rows.view(packed.shape[1], -1, self.block).transpose(0, 1))
        return packed

    def unpack(self, packed: Tensor, coordinates: int) -> State:
        """The state of the first `coordinates` coordinates as the rule has it: a tuple of (coordinates, hidden)."""
        rows = packed.transpose(0, 1).reshape(packed.shape[1], -1)[:, :coordinates]
        H = self._hidden
        return tuple(rows[first : first + H].t() for first in range(0, rows.shape[0], H))

    def tape(self, coordinates: int, steps: int, budget_bytes: int, before: Tape | None = None) -> Tape | None:
        """Room for what a window's steps leave for its gradient, within the budget; None when nothing fits.

        before: another window's, which is not to be used again, for its memory
        """
        blocks = -(-coordinates // self.block)
        return Tape.within(budget_bytes, self._library.sizes, steps, blocks, self.block, before)

    def step(
        self,
        weights: Tensor,
        theta: Tensor,
        gradient: Tensor,
        state: Tensor,
        tape: Tape | None = None,
        row: int = 0,
    ) -> None:
        """One inner step: theta += update, and the packed state moves on, both in place. theta, gradient: (N,).

        tape: where step `row` of a window leaves its records for `window_gradient`
        """
        self._check(weights, state, theta.shape[0])
        require("theta", theta, (theta.shape[0],), contiguous=True)
        require("gradient", gradient, (theta.shape[0],))
        self._check_tape(tape, theta.shape[0], row + 1)
        gradient = gradient.contiguous()
        failed = self._library.step(
            *(weights.data_ptr(), theta.shape[0], gradient.data_ptr(), state.data_ptr(), theta.data_ptr()),
            *(*_place(tape), row, self.threads),
        )
        if failed:
            raise MemoryError("the native kernel could not get its working memory for a step")
        torch.autograd.graph.increment_version((theta, state))

    def window_gradient(
        self, weights: Tensor, snapshot: Tensor, G: Tensor, D: Tensor, tape: Tape | None = None
    ) -> Tensor:
        """d/d(weights) of sum_t <D[t], update_t>, flat, (weights,), in the order of `rule.parameters()`.

        snapshot: the packed state before the window; it is only read
        G, D: (steps, N), the gradients that entered the rule and the weights of its updates; rows may be apart
        tape: what the steps of this very window wrote; without one they are computed again, with the same bits
        """
        steps, coordinates = G.shape
        self._check(weights, snapshot, coordinates)
        self._check_tape(tape, coordinates, steps)
        require("G", G, (steps, coordinates))
        require("D", D, (steps, coordinates))
        G, D = _rows(G), _rows(D)
        found = torch.empty(self._count, dtype=torch.float32, device="cpu")
        failed = self._library.window_gradient(
            *(weights.data_ptr(), coordinates, steps),
            *(G.data_ptr(), G.stride(0), D.data_ptr(), D.stride(0)),
            *(snapshot.data_ptr(), *_place(tape), found.data_ptr(), self.threads),
        )
        if failed:
            raise MemoryError(
                f"the native kernel could not get {self.workspace_bytes(steps):,} bytes a thread for a window of "
                f"{steps} steps; use a shorter window or fewer threads"
            )
        return torch.cat([found[self._places[name]] for name in self._names])

    def workspace_bytes(self, steps: int) -> int:
        """Memory that each thread takes during `window_gradient`, for a prediction of a job's need."""
        return int(self._library.workspace_bytes(steps))

    def _check(self, weights: Tensor, state: Tensor, coordinates: int) -> None:
        require("weights", weights, (self._library.prepared_bytes,), torch.uint8, contiguous=True)
        blocks = -(-coordinates // self.block)
        require("state", state, (blocks, self._tensors * self._hidden, self.block), contiguous=True)

    def _check_tape(self, tape: Tape | None, coordinates: int, rows: int) -> None:
        if tape is None:
            return
        sizes, blocks = self._library.sizes, -(-coordinates // self.block)
        layers = sizes.layers - tape.first_layer
        if rows > tape.steps or tape.blocks > blocks:
            raise ValueError(
                f"the tape is for {tape.steps} steps of at least {tape.blocks} blocks, not for {rows} of {blocks}"
            )
        shape = (tape.steps, tape.blocks, layers, 5 * sizes.hidden, self.block)
        require("tape", tape.data, shape, contiguous=True)


def _place(tape: Tape | None) -> tuple[int, int, int]:
    """Data, blocks and first layer, as the library wants them."""
    return (0, 0, 0) if tape is None else (tape.data.data_ptr(), tape.blocks, tape.first_layer)


def _rows(matrix: Tensor) -> Tensor:
    """The matrix, or a copy of it, with neighbouring numbers in a row; rows may be apart."""
    return matrix if matrix.stride(1) == 1 or matrix.shape[1] <= 1 else matrix.contiguous()
