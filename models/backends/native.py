"""The compiled kernel of the CPU, for LSTM rules in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from gradsmith.rules import LSTMRule, Rule
from gradsmith.rules.kernels.native import NativeKernel, Tape
from models.backends.base import Backend, Memory
from models.memory import KEPT_BYTES


class NativeBackend:
    """The compiled kernel: LSTM rules in float32 on the CPU. Its memory is one tensor of blocks, moved in place.

    One for each rule that runs: the weights' packed form is kept until the rule's parameters change, and the tape from
    window to window, because touching fresh memory costs as much as the tape saves.

    kept_bytes: of what a window's steps leave for its gradient, at most; beyond, they are computed again
    """

    def __init__(self, kernel: NativeKernel, *, kept_bytes: int = KEPT_BYTES) -> None:
        self.kernel = kernel
        self.name = f"native-{kernel.target.name}"
        self._kept_bytes = kept_bytes
        self._packed: Tensor | None = None
        self._packed_from: tuple[object, ...] = ()
        self._tape: Tape | None = None
        self._tape_for: tuple[int, int] | None = None

    def initial_memory(self, rule: Rule, coordinates: int, dtype: torch.dtype, device: torch.device) -> Memory:  # noqa: ARG002
        return (self.kernel.initial_state(coordinates),)

    def for_window(self, coordinates: int, steps: int) -> Backend:
        """This backend with a tape, where the budget holds one."""
        if self._tape_for != (coordinates, steps):
            self._tape = self.kernel.tape(coordinates, steps, self._kept_bytes, self._tape)
            self._tape_for = (coordinates, steps)
        return self if self._tape is None else _Recording(self, self._tape)

    def step(self, rule: Rule, theta: Tensor, gradient: Tensor, memory: Memory, segments: Tensor | None) -> Memory:  # noqa: ARG002
        self.kernel.step(self.weights(rule), theta, gradient, memory[0])
        return memory

    def kept(self, memory: Memory) -> Memory:
        return tuple(tensor.clone() for tensor in memory)

    def window_gradient(self, rule: Rule, snapshot: Memory, G: Tensor, D: Tensor, segments: Tensor | None) -> Tensor:  # noqa: ARG002
        return self.kernel.window_gradient(self.weights(rule), snapshot[0], G, D)

    def weights(self, rule: Rule) -> Tensor:
        """The rule's present weights as the kernel wants them."""
        assert isinstance(rule, LSTMRule), "backend_for gives other rules to torch"
        now = (rule, *((parameter.data_ptr(), parameter._version) for parameter in rule.parameters()))
        if self._packed is None or now != self._packed_from:
            self._packed, self._packed_from = self.kernel.weights(rule), now
        return self._packed


class _Recording:
    """One window: each step leaves its records on the next row of the tape, and the gradient reads them there."""

    def __init__(self, backend: NativeBackend, tape: Tape) -> None:
        self.name = backend.name
        self._backend = backend
        self._tape = tape
        self._steps = 0

    def initial_memory(self, rule: Rule, coordinates: int, dtype: torch.dtype, device: torch.device) -> Memory:
        return self._backend.initial_memory(rule, coordinates, dtype, device)

    def for_window(self, coordinates: int, steps: int) -> Backend:
        return self._backend.for_window(coordinates, steps)

    def step(self, rule: Rule, theta: Tensor, gradient: Tensor, memory: Memory, segments: Tensor | None) -> Memory:  # noqa: ARG002
        self._backend.kernel.step(self._backend.weights(rule), theta, gradient, memory[0], self._tape, self._steps)
        self._steps += 1
        return memory

    def kept(self, memory: Memory) -> Memory:
        return self._backend.kept(memory)

    def window_gradient(self, rule: Rule, snapshot: Memory, G: Tensor, D: Tensor, segments: Tensor | None) -> Tensor:  # noqa: ARG002
        assert self._steps == G.shape[0], "the tape is that of this window's steps"
        return self._backend.kernel.window_gradient(self._backend.weights(rule), snapshot[0], G, D, self._tape)
