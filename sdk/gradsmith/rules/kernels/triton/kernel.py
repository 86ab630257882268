"""`TritonKernel`: one LSTM rule's step and window gradient on a CUDA device, in float32, as two Triton programs.

The state is feature-major, (state rows, stride): for each layer H rows of h and H rows of c, coordinates side by side,
padded to whole blocks. `pack` and `unpack` change between it and the rule's own tuple of (coordinates, hidden).

Triton is imported with this module; `choose.triton_kernel` does so only where it is wanted.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, final

import torch
import triton
from torch import Tensor

from gradsmith.rules.base import Rule, State
from gradsmith.rules.kernels.triton import step, window
from gradsmith.rules.kernels.triton.layout import Layout
from gradsmith.rules.lstm import LSTMRule

Precision = Literal["float32", "bf16"]

SCRATCH_BYTES = 1 << 30  # of a window's gradient; beyond it fewer programs run, each over more blocks
_WARPS = 8  # by ptxas for the 2x20 LSTM: 0.2 KB a thread are spilled, with four warps 1.2 KB


@final
class TritonKernel:
    """Steps and window gradients of LSTM rules of one configuration; made by `choose.triton_kernel`.

    The same call gives the same bits on the same kind of card: no atomics; each program adds up its blocks in order
    and the programs' sums are added in order. Records nothing for autograd. With TRITON_INTERPRET=1 in the environment
    before Triton's import it works on the CPU, slowly, for tests.

    precision: "bf16" rounds both factors of every matrix product to bfloat16 and still adds up in float32
    block: coordinates that a program computes together, a power of two from 16
    programs: most programs of a window's gradient; default: two for each multiprocessor of the card
    """

    def __init__(
        self,
        rule: LSTMRule,
        device: torch.device,
        *,
        precision: Precision = "float32",
        block: int = 64,
        programs: int | None = None,
    ) -> None:
        layout = Layout.of(rule)
        if layout is None:
            raise ValueError(f"the Triton programs cannot run {rule.config()}; use the torch backend")
        self.config = rule.config()
        self.device = device
        self.precision = precision
        self.block = block
        self._layout = layout
        layout.to(device)
        self._most_programs = _programs_of(device) if programs is None else programs
        self._rows = 2 * layout.layers * layout.hidden
        self._features = (rule.settings.p, math.exp(-rule.settings.p), rule.output_scale)
        self.constants: dict[str, Any] = {
            "H": layout.hidden,
            "PADDED": layout.padded,
            "LAYERS": layout.layers,
            "LOG_SIGN": rule.settings.input == "log_sign",
            "BLOCK": self.block,
            "BF16": precision == "bf16",
            "INTERPRETED": interpreted(),
            "num_warps": _WARPS,
            # One stage: the pipeliner would read slots of the scratch memory ahead of the step that writes them.
            "num_stages": 1,
        }

    def weights(self, rule: Rule) -> Tensor:
        """The rule's present weights as the other methods want them; to be made again after each change of them.

        Raises ValueError when the rule is not of this kernel's configuration.
        """
        if rule.config() != self.config:
            raise ValueError(f"this kernel is for {self.config}, not for {rule.config()}; make one for that rule")
        return self._layout.padded_weights(rule)

    def initial_state(self, coordinates: int) -> Tensor:
        """The packed state before the first step: zeros, (state rows, coordinates padded to whole blocks)."""
        shape = (self._rows, self._blocks(coordinates) * self.block)
        return torch.zeros(shape, dtype=torch.float32, device=self.device)

    def pack(self, state: State) -> Tensor:
        """A rule's state, a tuple of (N, hidden), feature-major and padded."""
        packed = self.initial_state(state[0].shape[0])
        packed[:, : state[0].shape[0]] = torch.cat([memory.detach().t() for memory in state])
        return packed

    def unpack(self, packed: Tensor, coordinates: int) -> State:
        """The state of the first `coordinates` coordinates as the rule has it: a tuple of (coordinates, hidden)."""
        return tuple(rows.t() for rows in torch.split(packed[:, :coordinates], self._layout.hidden))

    def step(self, weights: Tensor, theta: Tensor, gradient: Tensor, state: Tensor) -> None:
        """One inner step: theta += update, and the packed state moves on, both in place. theta, gradient: (N,)."""
        coordinates = theta.shape[0]
        self._check(weights, state, coordinates)
        self._require("theta", theta, (coordinates,), contiguous=True)
        self._require("gradient", gradient, (coordinates,))
        if coordinates == 0:
            return
        with self._on_device():
            step.step[(self._blocks(coordinates),)](
                *(weights, gradient.contiguous(), theta, state, coordinates, state.stride(0)),
                *self._features,
                **self.constants,
            )
        torch.autograd.graph.increment_version((theta, state))

    def window_gradient(self, weights: Tensor, snapshot: Tensor, G: Tensor, D: Tensor) -> Tensor:
        """d/d(weights) of sum_t <D[t], update_t>, flat, (weights,), in the order of `rule.parameters()`.

        snapshot: the packed state before the window; it is only read
        G, D: (steps, N), the gradients that entered the rule and the weights of its updates; rows may be apart
        """
        steps, coordinates = G.shape
        self._check(weights, snapshot, coordinates)
        self._require("G", G, (steps, coordinates))
        self._require("D", D, (steps, coordinates))
        G, D = _rows(G), _rows(D)
        blocks = self._blocks(coordinates)
        count = self._programs(coordinates, steps)
        found = torch.zeros(count, self._layout.size, dtype=torch.float32, device=self.device)
        if coordinates and steps:
            floats = count * self._program_bytes(steps) // 4
            scratch = torch.empty(floats, dtype=torch.float32, device=self.device)
            with self._on_device():
                window.window_gradient[(count,)](
                    *(weights, G, D, snapshot, scratch, found, coordinates, steps, blocks),
                    *(G.stride(0), D.stride(0), snapshot.stride(0)),
                    *self._features,
                    **self.constants,
                )
        return self._layout.unpadded(found.sum(0, dtype=torch.float64).float())

    def workspace_bytes(self, coordinates: int, steps: int) -> int:
        """Memory that `window_gradient` takes while it runs, for a prediction of a job's need."""
        return self._programs(coordinates, steps) * (self._program_bytes(steps) + 4 * self._layout.size)

    def _blocks(self, coordinates: int) -> int:
        return -(-coordinates // self.block)

    def _programs(self, coordinates: int, steps: int) -> int:
        affordable = SCRATCH_BYTES // self._program_bytes(steps)
        return max(1, min(self._blocks(coordinates), self._most_programs, affordable))

    def _program_bytes(self, steps: int) -> int:
        return 4 * ((steps + 1) * 6 + 2) * self._layout.layers * self._layout.hidden * self.block

    def _on_device(self) -> AbstractContextManager[Any]:
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    def _check(self, weights: Tensor, state: Tensor, coordinates: int) -> None:
        self._require("weights", weights, (self._layout.size,), contiguous=True)
        self._require("state", state, (self._rows, self._blocks(coordinates) * self.block), contiguous=True)

    def _require(self, name: str, tensor: Tensor, shape: tuple[int, ...], *, contiguous: bool = False) -> None:
        """The programs trust their pointers: everything is checked here."""
        if tuple(tensor.shape) != shape or tensor.dtype != torch.float32 or tensor.device != self.device:
            raise ValueError(
                f"{name} must be a torch.float32 tensor of shape {shape} on {self.device}, not {tensor.dtype} of shape "
                f"{tuple(tensor.shape)} on {tensor.device}"
            )
        if contiguous and not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous, but has strides {tensor.stride()}; it is used in place")


def interpreted() -> bool:
    """Whether Triton was told, before its import, to interpret its programs."""
    return not isinstance(step.step, triton.JITFunction)


def _programs_of(device: torch.device) -> int:
    if device.type != "cuda":
        return 2
    return 2 * torch.cuda.get_device_properties(device).multi_processor_count


def _rows(matrix: Tensor) -> Tensor:
    """The matrix, or a copy of it, with neighbouring numbers in a row; rows may be apart."""
    return matrix if matrix.stride(1) == 1 or matrix.shape[1] <= 1 else matrix.contiguous()
