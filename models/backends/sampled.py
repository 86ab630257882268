"""Weight gradients that look at some coordinates of each tensor, drawn anew for each window.

A rule that runs once for each coordinate is differentiated at as many of them. The sum over a tensor's coordinates is
estimated from a few, each counted as often as it stands for others (Horvitz and Thompson 1952): unbiased, with more
noise where coordinates differ. Small tensors are looked at whole. What coordinates are worth, and how exact gradients
move with them, is computed for all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradsmith.rules.chosen import Chosen
from gradsmith.rules.kernels.base import Refusal
from models.backends.base import Backend, Memory
from models.backends.native import NativeBackend
from models.backends.native_tensors import NativeTensorBackend
from models.backends.plain_torch import TorchBackend
from models.backends.triton import TritonBackend
from models.errors import BackendUnavailable


def sampled(backend: Backend, chosen: Chosen) -> Backend:
    """The backend with weight gradients of the chosen coordinates. Raises BackendUnavailable where it has none."""
    if isinstance(backend, TorchBackend | NativeTensorBackend) and backend.learns_apart:
        return backend.learning_from(chosen)
    if isinstance(backend, TorchBackend | NativeBackend | TritonBackend):
        return SampledBackend(backend, chosen)
    raise BackendUnavailable(
        f"The backend {backend.name} looks at all coordinates of this rule. Leave out recipe.sampled_coordinates, or "
        f"send resources.backend torch."
    )


class SampledBackend:
    """For rules whose coordinates do not see each other: the chosen ones are differentiated as if they were all."""

    replayable = False

    def __init__(self, backend: TorchBackend | NativeBackend | TritonBackend, chosen: Chosen) -> None:
        self.name = backend.name
        self.task_size = backend.task_size
        self.rests = backend.rests
        self._backend = backend
        self._chosen = chosen

    def parameters(self) -> Sequence[nn.Parameter]:
        return self._backend.parameters()

    def initial_memory(self, coordinates: int, steps: int | None = None) -> Memory:
        return self._backend.initial_memory(coordinates, steps)

    def for_window(self, coordinates: int, steps: int) -> SampledBackend:  # noqa: ARG002 - a tape would be of all
        return self

    def step(self, theta: Tensor, gradient: Tensor, memory: Memory) -> Memory:
        return self._backend.step(theta, gradient, memory)

    def forget(self, memory: Memory, where: Tensor) -> Memory:
        return self._backend.forget(memory, where)

    def kept(self, memory: Memory) -> Memory:
        return self._backend.kept(memory)

    def window_gradient(self, snapshot: Memory, G: Tensor, D: Tensor) -> Tensor:
        places, weights = self._chosen
        own = self._backend.rows(snapshot, places)
        return self._backend.window_gradient(own, G.index_select(1, places), D.index_select(1, places).mul_(weights))

    def exact_window(self, coordinates: int, steps: int) -> Refusal:  # noqa: ARG002
        return Refusal("its network is gone back through at every coordinate anyway, so that none can be left out")


def draw(sizes: Sequence[int], tasks: int, most: int, seed: int, like: Tensor) -> Chosen | None:
    """Draw `most` coordinates of each tensor that has more, without replacement, each as likely; the same ones of every
    task. None: all.

    sizes: coordinates of each tensor of one task; like: for dtype and device
    """
    if all(size <= most for size in sizes):
        return None
    generator = torch.Generator().manual_seed(seed)
    places, weights, start = [], [], 0
    for size in sizes:
        found = torch.arange(size)
        if size > most:
            found = torch.randperm(size, generator=generator)[:most].sort().values
        places.append(found + start)
        weights.append(torch.full((len(found),), max(1.0, size / most), dtype=like.dtype))
        start += size
    each, own = torch.cat(places), torch.cat(weights)
    every = (torch.arange(tasks)[:, None] * start + each).view(-1)
    return Chosen(every.to(like.device), own.repeat(tasks).to(like.device))
