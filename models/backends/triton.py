"""Two Triton programs on a CUDA device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gradsmith.rules import Rule
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.triton import triton_kernel
from models.backends.base import DETACHED, Memory

if TYPE_CHECKING:
    from gradsmith.rules.kernels.triton.kernel import TritonKernel
from models.task_spec import Part


def offered(
    rule: Rule,
    dtype: torch.dtype,
    device: torch.device,
    threads: int,  # noqa: ARG001
    parts: Sequence[Part],  # noqa: ARG001
) -> TritonBackend | Refusal:
    """The rule on Triton's kernel, or why it cannot run there."""
    if device.type != "cuda":
        return Refusal(f"it needs a CUDA device, not {device.type}")
    if dtype != torch.float32:
        return Refusal("it computes in float32")
    kernel = triton_kernel(rule, device)
    return kernel if isinstance(kernel, Refusal) else TritonBackend(rule, kernel)


class TritonBackend:
    """A rule on Triton's kernel, in float32 on a CUDA device. Its memory is one tensor, moved in place.

    The weights' padded form is kept until the rule's parameters change.
    """

    replayable = True
    task_size: int | None = None

    def __init__(self, rule: Rule, kernel: TritonKernel) -> None:
        self._rule = rule
        self._kernel = kernel
        self.name = "triton" if kernel.precision == "float32" else f"triton-{kernel.precision}"
        self.rests = rule.rests
        self._parameters = tuple(rule.parameters())
        self._padded: Tensor | None = None
        self._padded_from: tuple[object, ...] = ()

    def parameters(self) -> Sequence[nn.Parameter]:
        return self._parameters

    def initial_memory(self, coordinates: int, steps: int | None = None) -> Memory:  # noqa: ARG002
        return (self._kernel.initial_state(coordinates),)

    def for_window(self, coordinates: int, steps: int) -> TritonBackend:  # noqa: ARG002
        """A fresh one, which pads the weights anew: where the window is captured in a CUDA graph (models.captured),
        that must be a part of it, since the weights change between windows."""
        return TritonBackend(self._rule, self._kernel)

    def step(self, theta: Tensor, gradient: Tensor, memory: Memory) -> Memory:
        self._kernel.step(self._weights(), theta, gradient, memory[0])
        return memory

    def forget(self, memory: Memory, where: Tensor) -> Memory:
        memory[0][:, where.nonzero()[:, 0]] = 0.0
        return memory

    def rows(self, memory: Memory, places: Tensor) -> Memory:
        """The memory of these coordinates, (n,) int64."""
        return (memory[0][:, places].contiguous(),)

    def kept(self, memory: Memory) -> Memory:
        return tuple(tensor.clone() for tensor in memory)

    def window_gradient(self, snapshot: Memory, G: Tensor, D: Tensor) -> Tensor:
        return self._kernel.window_gradient(self._weights(), snapshot[0], G, D)

    def exact_window(self, coordinates: int, steps: int) -> Refusal:  # noqa: ARG002
        return DETACHED

    def _weights(self) -> Tensor:
        now = tuple((parameter.data_ptr(), parameter._version) for parameter in self._parameters)
        if self._padded is None or now != self._padded_from:
            self._padded, self._padded_from = self._kernel.weights(self._rule), now
        return self._padded
