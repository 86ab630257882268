"""The compiled kernel of rules that look at tensors."""

from __future__ import annotations

import copy
from array import array
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradsmith.rules import Rule, Segments
from gradsmith.rules.chosen import Chosen
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
        self._rooms = _Rooms(kernel)
        self.chosen: Chosen | None = None
        self._weights: Tensor | None = None
        self._weights_from: tuple[object, ...] = ()

    def parameters(self) -> Sequence[nn.Parameter]:
        return self._parameters

    @property
    def learns_apart(self) -> bool:
        """Whether the rule's network may learn from some coordinates while all move."""
        return self.kernel.samples

    def learning_from(self, chosen: Chosen) -> NativeTensorBackend:
        """This backend, with weight gradients of these coordinates alone."""
        assert self.learns_apart
        twin = copy.copy(self)
        twin.chosen = chosen
        return twin

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

    def rooms(self, coordinates: int, steps: int) -> _Rooms:
        """For what the steps of a window leave."""
        segments, _ = self.axis(coordinates)
        self._rooms.make(coordinates, segments.rows, steps, outputs=self.chosen is not None)
        return self._rooms


class _Rooms:
    """Records of the steps of a window, and where weights learn from some coordinates also outputs. They are kept from
    window to window: touching fresh memory costs as much as a step."""

    def __init__(self, kernel: TensorKernel) -> None:
        self._kernel = kernel
        self.records: list[Tensor] = []
        self.outputs: list[Tensor] = []

    def make(self, coordinates: int, tensors: int, steps: int, *, outputs: bool) -> None:
        kernel = self._kernel
        if _lacks(self.records, steps, kernel.record_floats(coordinates, tensors)):
            self.records = [kernel.record(coordinates, tensors) for _ in range(steps)]
        if outputs and _lacks(self.outputs, steps, kernel.outputs_floats(coordinates, tensors)):
            self.outputs = [kernel.outputs(coordinates, tensors) for _ in range(steps)]


def _lacks(rooms: Sequence[Tensor], steps: int, floats: int) -> bool:
    return len(rooms) < steps or any(room.numel() != floats for room in rooms[:1])


class _Window:
    """One window: each step leaves a record, and the way back reads them, last first."""

    replayable = False

    def __init__(self, backend: NativeTensorBackend, coordinates: int, steps: int) -> None:
        self.name = backend.name
        self.rests = backend.rests
        self.task_size = backend.task_size
        self._backend = backend
        self._sizes = backend.axis(coordinates)[1]
        self._rooms = backend.rooms(coordinates, steps)
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
        outputs = None if self._backend.chosen is None else self._rooms.outputs[self._steps]
        record = self._rooms.records[self._steps]
        self._backend.kernel.step(self._weights, self._sizes, theta, gradient, memory, record, outputs)
        self._steps += 1
        return memory

    def back(self, worth: Tensor) -> Tensor:
        self._steps -= 1
        q = self._back(self._steps, worth, gradient=True)
        assert q is not None
        return q

    def _back(self, step: int, worth: Tensor, *, gradient: bool) -> Tensor | None:
        kernel, chosen, record = self._backend.kernel, self._backend.chosen, self._rooms.records[step]
        where = (worth, self._worths, self._total)
        if chosen is None:
            return kernel.back(self._weights, self._sizes, record, *where, gradient=gradient)
        left = (record, self._rooms.outputs[step])
        return kernel.back_sampled(self._weights, self._sizes, left, *where, chosen, gradient=gradient)

    def gradient(self) -> Tensor:
        return self._total.float()

    def window_gradient(self, snapshot: Memory, G: Tensor, D: Tensor) -> Tensor:  # noqa: ARG002
        assert self._steps == G.shape[0], "the records are those of this window's steps"
        for step, worth in enumerate(D):
            self._back(step, worth, gradient=False)
        return self.gradient()
