"""Two Triton programs on a CUDA device, for LSTM rules in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gradsmith.rules import LSTMRule, Rule
from models.backends.base import Memory

if TYPE_CHECKING:
    from gradsmith.rules.kernels.triton.kernel import TritonKernel


class TritonBackend:
    """Triton's kernel: LSTM rules in float32 on a CUDA device. Its memory is one tensor, moved in place.

    One for each rule that runs: the weights' padded form is kept until the rule's parameters change.
    """

    def __init__(self, kernel: TritonKernel) -> None:
        self._kernel = kernel
        self.name = "triton" if kernel.precision == "float32" else f"triton-{kernel.precision}"
        self._padded: Tensor | None = None
        self._padded_from: tuple[object, ...] = ()

    def initial_memory(self, rule: Rule, coordinates: int, dtype: torch.dtype, device: torch.device) -> Memory:  # noqa: ARG002
        return (self._kernel.initial_state(coordinates),)

    def for_window(self, coordinates: int, steps: int) -> TritonBackend:  # noqa: ARG002
        """A fresh one, which pads the weights anew: where the window is captured in a CUDA graph (models.captured),
        that must be a part of it, since the weights change between windows."""
        return TritonBackend(self._kernel)

    def step(self, rule: Rule, theta: Tensor, gradient: Tensor, memory: Memory, segments: Tensor | None) -> Memory:  # noqa: ARG002
        self._kernel.step(self._weights(rule), theta, gradient, memory[0])
        return memory

    def kept(self, memory: Memory) -> Memory:
        return tuple(tensor.clone() for tensor in memory)

    def window_gradient(self, rule: Rule, snapshot: Memory, G: Tensor, D: Tensor, segments: Tensor | None) -> Tensor:  # noqa: ARG002
        return self._kernel.window_gradient(self._weights(rule), snapshot[0], G, D)

    def _weights(self, rule: Rule) -> Tensor:
        assert isinstance(rule, LSTMRule), "backend_for gives other rules to torch"
        now = (rule, *((parameter.data_ptr(), parameter._version) for parameter in rule.parameters()))
        if self._padded is None or now != self._padded_from:
            self._padded, self._padded_from = self._kernel.weights(rule), now
        return self._padded
