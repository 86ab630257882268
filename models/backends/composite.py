"""Several rules for one task: each moves the coordinates of its own parts, on a backend of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from gradsmith.rules.kernels.base import Refusal
from models.backends.base import Backend, ExactWindow, Memory
from models.task_spec import Part


class CompositeBackend:
    """Backends side by side. Each sees its coordinates of all tasks as one axis, gathered before a step and put back
    after it; which ones they are depends on the number of coordinates alone, and is kept.

    members: each backend, and the places in `parts` of what it moves; together they have every part once
    parts: the tensors of one task
    """

    def __init__(self, members: Sequence[tuple[Backend, Sequence[int]]], parts: Sequence[Part]) -> None:
        self._members = [backend for backend, _ in members]
        self._places = [tuple(places) for _, places in members]
        self._parts = tuple(parts)
        self.name = "+".join(dict.fromkeys(backend.name for backend in self._members))
        self.task_size: int | None = sum(part.size for part in parts)
        self.rests = all(backend.rests for backend in self._members)
        self.replayable = all(backend.replayable for backend in self._members)
        ends = accumulate((len(backend.initial_memory(0, 1)) for backend in self._members), initial=0)
        self._memories = [slice(start, end) for start, end in pairwise(ends)]
        self._device = self._members[0].parameters()[0].device
        self._found: tuple[int, list[Tensor]] | None = None

    def parameters(self) -> Sequence[nn.Parameter]:
        return [parameter for backend in self._members for parameter in backend.parameters()]

    def initial_memory(self, coordinates: int, steps: int | None = None) -> Memory:
        own = zip(self._members, self._indices(coordinates), strict=True)
        return tuple(tensor for backend, index in own for tensor in backend.initial_memory(index.shape[0], steps))

    def for_window(self, coordinates: int, steps: int) -> Backend:
        indices = self._indices(coordinates)
        windows = [
            (backend.for_window(index.shape[0], steps), places)
            for backend, places, index in zip(self._members, self._places, indices, strict=True)
        ]
        made = CompositeBackend(windows, self._parts)
        made._found = self._found
        return made

    def step(self, theta: Tensor, gradient: Tensor, memory: Memory) -> Memory:
        after: list[Tensor] = []
        for backend, index, own in zip(self._members, self._indices(theta.shape[0]), self._memories, strict=True):
            moved = theta.index_select(0, index)
            after += backend.step(moved, gradient.index_select(0, index), memory[own])
            theta.index_copy_(0, index, moved)
        return tuple(after)

    def forget(self, memory: Memory, where: Tensor) -> Memory:
        own = zip(self._members, self._indices(where.shape[0]), self._memories, strict=True)
        return tuple(tensor for backend, index, part in own for tensor in backend.forget(memory[part], where[index]))

    def kept(self, memory: Memory) -> Memory:
        own = zip(self._members, self._memories, strict=True)
        return tuple(tensor for backend, where in own for tensor in backend.kept(memory[where]))

    def window_gradient(self, snapshot: Memory, G: Tensor, D: Tensor) -> Tensor:
        return torch.cat(
            [
                backend.window_gradient(snapshot[own], G.index_select(1, index), D.index_select(1, index))
                for backend, index, own in zip(self._members, self._indices(G.shape[1]), self._memories, strict=True)
            ]
        )

    def exact_window(self, coordinates: int, steps: int) -> CompositeWindow | Refusal:
        windows = []
        indices = self._indices(coordinates)
        for backend, index in zip(self._members, indices, strict=True):
            window = backend.exact_window(index.shape[0], steps)
            if isinstance(window, Refusal):
                return window
            windows.append(window)
        return CompositeWindow(windows, indices, self._memories)

    def _indices(self, coordinates: int) -> list[Tensor]:
        """Which coordinates are whose: for each member (its coordinates,) int64, rising."""
        if self._found is None or self._found[0] != coordinates:
            owner = torch.cat(
                [
                    torch.full((part.size,), next(n for n, places in enumerate(self._places) if place in places))
                    for place, part in enumerate(self._parts)
                ]
            )
            owners = owner[torch.arange(coordinates) % owner.shape[0]]
            indices = [(owners == number).nonzero()[:, 0].to(self._device) for number in range(len(self._members))]
            self._found = coordinates, indices
        return self._found[1]


class CompositeWindow:
    """The members' windows side by side: what an update of one is worth depends on the others, through theta.

    indices: the coordinates of each
    memories: where the memory of each lies in that of all
    """

    def __init__(self, windows: Sequence[ExactWindow], indices: Sequence[Tensor], memories: Sequence[slice]) -> None:
        self._windows = windows
        self._indices = indices
        self._memories = memories

    def step(self, theta: Tensor, gradient: Tensor, memory: Memory) -> Memory:
        after: list[Tensor] = []
        for window, index, own in zip(self._windows, self._indices, self._memories, strict=True):
            moved = theta.index_select(0, index)
            after += window.step(moved, gradient.index_select(0, index), memory[own])
            theta.index_copy_(0, index, moved)
        return tuple(after)

    def kept(self, memory: Memory) -> Memory:
        own = zip(self._windows, self._memories, strict=True)
        return tuple(tensor for window, where in own for tensor in window.kept(memory[where]))

    def back(self, worth: Tensor) -> Tensor:
        q = torch.empty_like(worth)
        for window, index in zip(self._windows, self._indices, strict=True):
            q.index_copy_(0, index, window.back(worth.index_select(0, index)))
        return q

    def gradient(self) -> Tensor:
        return torch.cat([window.gradient() for window in self._windows])
