"""The compiled kernel of the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradsmith.rules import Rule
from gradsmith.rules.hyper import HyperRule
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.native import NativeKernel, Tape, native_kernel, tensor_kernel
from gradsmith.rules.kernels.native.tensor_kernel import LONGEST_SHORT_SIDE
from gradsmith.rules.mlp import MLPRule
from models.backends.base import DETACHED, Backend, Memory
from models.backends.native_tensors import NativeTensorBackend
from models.memory import KEPT_BYTES
from models.task_spec import Part


def offered(
    rule: Rule,
    dtype: torch.dtype,
    device: torch.device,
    threads: int,
    parts: Sequence[Part],
    *,
    bfloat16: bool = False,
) -> Backend | Refusal:
    """The rule on the compiled kernel, or why it cannot run there. bfloat16: its products have factors in that."""
    if device.type != "cpu":
        return Refusal(f"it runs on the CPU, not on {device.type}")
    if dtype != torch.float32:
        return Refusal("it computes in float32")
    if isinstance(rule, HyperRule | MLPRule) and not bfloat16:
        of_tensors = tensor_kernel(rule, threads=threads)
        if isinstance(of_tensors, Refusal):
            return of_tensors
        if not of_tensors.suits([part.shape for part in parts]):
            return Refusal(f"it orthogonalizes matrices with a side of at most {LONGEST_SHORT_SIDE}")
        return NativeTensorBackend(rule, of_tensors, parts)
    kernel = native_kernel(rule, threads=threads, bfloat16=bfloat16)
    return kernel if isinstance(kernel, Refusal) else NativeBackend(rule, kernel)


EMULATES = "-emulating-bfloat16"
"""How a backend's name ends that has no instructions for products in bfloat16."""


class NativeBackend:
    """A rule on the compiled kernel, in float32 on the CPU. Its memory is one tensor of blocks, moved in place.

    The weights' packed form is kept until the rule's parameters change, and the tape from window to window, because
    touching fresh memory costs as much as the tape saves.

    kept_bytes: memory that a window's steps may leave for its gradient; beyond it, they are computed again
    """

    replayable = False
    task_size: int | None = None

    def __init__(self, rule: Rule, kernel: NativeKernel, *, kept_bytes: int = KEPT_BYTES) -> None:
        self.rule = rule
        self.kernel = kernel
        self.name = f"native-{kernel.target.name}{EMULATES if kernel.emulates else ''}"
        self.rests = rule.rests
        self._kept_bytes = kept_bytes
        self._parameters = tuple(rule.parameters())
        self._packed: Tensor | None = None
        self._packed_from: tuple[object, ...] = ()
        self._tape: Tape | None = None
        self._tape_for: tuple[int, int] | None = None

    def parameters(self) -> Sequence[nn.Parameter]:
        return self._parameters

    def initial_memory(self, coordinates: int, steps: int | None = None) -> Memory:  # noqa: ARG002
        return (self.kernel.initial_state(coordinates),)

    def for_window(self, coordinates: int, steps: int) -> Backend:
        """This backend with a tape, where the budget holds one."""
        if self._tape_for != (coordinates, steps):
            self._tape = self.kernel.tape(coordinates, steps, self._kept_bytes, self._tape)
            self._tape_for = (coordinates, steps)
        return self if self._tape is None else _Recording(self, self._tape)

    def step(self, theta: Tensor, gradient: Tensor, memory: Memory) -> Memory:
        self.kernel.step(self.weights(), theta, gradient, memory[0])
        return memory

    def forget(self, memory: Memory, where: Tensor) -> Memory:
        coordinates = where.nonzero()[:, 0]
        memory[0][coordinates // self.kernel.block, :, coordinates % self.kernel.block] = 0.0
        return memory

    def kept(self, memory: Memory) -> Memory:
        return tuple(tensor.clone() for tensor in memory)

    def rows(self, memory: Memory, places: Tensor) -> Memory:
        """The memory of these coordinates, (n,) int64."""
        block, found = self.kernel.block, self.kernel.initial_state(len(places))
        own = torch.arange(len(places))
        found[own // block, :, own % block] = memory[0][places // block, :, places % block]
        return (found,)

    def window_gradient(self, snapshot: Memory, G: Tensor, D: Tensor) -> Tensor:
        return self.kernel.window_gradient(self.weights(), snapshot[0], G, D)

    def exact_window(self, coordinates: int, steps: int) -> Refusal:  # noqa: ARG002
        return DETACHED

    def weights(self) -> Tensor:
        """The rule's present weights as the kernel wants them."""
        now = tuple((parameter.data_ptr(), parameter._version) for parameter in self._parameters)
        if self._packed is None or now != self._packed_from:
            self._packed, self._packed_from = self.kernel.weights(self.rule), now
        return self._packed


class _Recording:
    """One window: each step leaves its records on the next row of the tape, and the gradient reads them there."""

    replayable = False
    task_size: int | None = None

    def __init__(self, backend: NativeBackend, tape: Tape) -> None:
        self.name = backend.name
        self.rests = backend.rests
        self._backend = backend
        self._tape = tape
        self._steps = 0

    def parameters(self) -> Sequence[nn.Parameter]:
        return self._backend.parameters()

    def initial_memory(self, coordinates: int, steps: int | None = None) -> Memory:
        return self._backend.initial_memory(coordinates, steps)

    def for_window(self, coordinates: int, steps: int) -> Backend:
        return self._backend.for_window(coordinates, steps)

    def step(self, theta: Tensor, gradient: Tensor, memory: Memory) -> Memory:
        self._backend.kernel.step(self._backend.weights(), theta, gradient, memory[0], self._tape, self._steps)
        self._steps += 1
        return memory

    def forget(self, memory: Memory, where: Tensor) -> Memory:
        return self._backend.forget(memory, where)

    def kept(self, memory: Memory) -> Memory:
        return self._backend.kept(memory)

    def window_gradient(self, snapshot: Memory, G: Tensor, D: Tensor) -> Tensor:
        assert self._steps == G.shape[0], "the tape is that of this window's steps"
        return self._backend.kernel.window_gradient(self._backend.weights(), snapshot[0], G, D, self._tape)

    def exact_window(self, coordinates: int, steps: int) -> Refusal:
        return self._backend.exact_window(coordinates, steps)
