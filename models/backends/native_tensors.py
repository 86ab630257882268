"""The compiled kernel of rules that look at tensors."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradsmith.rules import Rule, Segments
from gradsmith.rules.kernels.native import TensorKernel
from models.backends.base import Backend, Memory
from models.task_spec import Part


class NativeTensorBackend:
    """A hyper or mlp rule on the compiled kernel, in float32 on the CPU. Its memory is the rule's own, moved in place.
    Windows are recorded, detached or exact, and gone back through step by step.

    parts: the tensors of one task; default: one
    """

    replayable = False

    def __init__(self, rule: Rule, kernel: TensorKernel, parts: Sequence[Part] = ()) -> None:
        self.rule = rule
        self.kernel = kernel
        self.name = f"native-{kernel.target.name}"
        self.rests = rule.rests
        self._parameters = tuple(rule.parameters())
        self._parts = tuple(part.size for part in parts)
        self._shapes = tuple(part.shape for part in parts) or None
        self.task_size: int | None = sum(self._parts) if parts else None
        self._axis: tuple[int, Segments, array[int]] | None = None
        self._records: list[Tensor] = []
        self._weights: Tensor | None = None
        self._weights_from: tuple[object, ...] = ()

    def parameters(self) -> Sequence[nn.Parameter]:
        return self._parameters

    def initial_memory(self, coordinates: int, steps: int | None = None) -> Memory:
        segments, _ = self.axis(coordinates)
        return self.rule.plan(self.rule.initial_state(coordinates, tensors=segments.rows, dtype=torch.float32), steps)

    def for_window(self, coordinates: int, steps: int) -> Backend:
        return _Window(self, coordinates, steps)

    def exact_window(self, coordinates: int, steps: int) -> _Window:
        return _Window(self, coordinates, steps)

    def step(self, theta: Tensor, gradient: Tensor, memory: Memory) -> Memory:
        _, sizes = self.axis(theta.shape[0])
        self.kernel.step(self.weights(), sizes, theta, gradient, memory)
        return memory

    def forget(self, memory: Memory, where: Tensor) -> Memory:
        for tensor in memory[: -self.rule.of_tensors]:  # what is remembered of a tensor stays
            tensor[where] = 0.0
        return memory

    def kept(self, memory: Memory) -> Memory:
        return tuple(tensor.clone(memory_format=torch.preserve_format) for tensor in memory)

    def window_gradient(self, snapshot: Memory, G: Tensor, D: Tensor) -> Tensor:
        window = _Window(self, G.shape[1], G.shape[0])
        memory, theta = self.kept(snapshot), torch.zeros_like(G[0])
        for gradient in G:
            memory = window.step(theta, gradient, memory)
        return window.window_gradient(snapshot, G, D)

    def weights(self) -> Tensor:
        """The rule's present weights as the kernel wants them."""
        now = tuple((parameter.data_ptr(), parameter._version) for parameter in self._parameters)
        if self._weights is None or now != self._weights_from:
            self._weights, self._weights_from = self.kernel.weights(self.rule), now
        return self._weights

    def axis(self, coordinates: int) -> tuple[Segments, array[int]]:
        """The tensors of an axis with this many coordinates, and their sizes."""
        if self._axis is None or self._axis[0] != coordinates:
            segments = Segments.repeated(self._parts or (coordinates,), coordinates, shapes=self._shapes)
            self._axis = coordinates, segments, self.kernel.sizes(segments)
        return self._axis[1:]

    def records(self, coordinates: int, steps: int) -> list[Tensor]:
        """One for each step of a window. They are kept from window to window: touching fresh memory costs as much as a
        step."""
        segments, _ = self.axis(coordinates)
        wanted = self.kernel.record_floats(coordinates, segments.rows)
        if len(self._records) < steps or any(record.numel() != wanted for record in self._records[:1]):
            self._records = [self.kernel.record(coordinates, segments.rows) for _ in range(steps)]
        return self._records


class _Window:
    """One window: each step leaves a record, and the way back reads them, last first."""

    replayable = False

    def __init__(self, backend: NativeTensorBackend, coordinates: int, steps: int) -> None:
        self.name = backend.name
        self.rests = backend.rests
        self.task_size = backend.task_size
        self._backend = backend
        self._sizes = backend.axis(coordinates)[1]
        self._records = backend.records(coordinates, steps)
        self._weights = backend.weights()
        self._steps = 0
        self._total = torch.zeros(self._weights.shape[0], dtype=torch.float64)
        self._worths = torch.zeros(backend.kernel.layout.means, coordinates, dtype=torch.float32)

    def parameters(self) -> Sequence[nn.Parameter]:
        return self._backend.parameters()

    def initial_memory(self, coordinates: int, steps: int | None = None) -> Memory:
        return self._backend.initial_memory(coordinates, steps)

    def for_window(self, coordinates: int, steps: int) -> Backend:
        return self._backend.for_window(coordinates, steps)

    def exact_window(self, coordinates: int, steps: int) -> _Window:
        return self._backend.exact_window(coordinates, steps)

    def forget(self, memory: Memory, where: Tensor) -> Memory:
        return self._backend.forget(memory, where)

    def kept(self, memory: Memory) -> Memory:
        return self._backend.kept(memory)

    def step(self, theta: Tensor, gradient: Tensor, memory: Memory) -> Memory:
        kernel = self._backend.kernel
        kernel.step(self._weights, self._sizes, theta, gradient, memory, self._records[self._steps])
        self._steps += 1
        return memory

    def back(self, worth: Tensor) -> Tensor:
        self._steps -= 1
        record = self._records[self._steps]
        q = self._backend.kernel.back(self._weights, self._sizes, record, worth, self._worths, self._total)
        assert q is not None
        return q

    def gradient(self) -> Tensor:
        return self._total.float()

    def window_gradient(self, snapshot: Memory, G: Tensor, D: Tensor) -> Tensor:  # noqa: ARG002
        assert self._steps == G.shape[0], "the records are those of this window's steps"
        kernel = self._backend.kernel
        for record, worth in zip(self._records, D, strict=False):
            kernel.back(self._weights, self._sizes, record, worth, self._worths, self._total, gradient=False)
        return self.gradient()
