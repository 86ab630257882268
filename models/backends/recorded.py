"""A window of any rule that is differentiated with second derivatives, step by step, by autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from models.backends.base import Memory

Step = Callable[[Tensor, Memory, slice], tuple[Tensor, Memory]]
"""A rule's forward: gradient and memory of a block of coordinates, and which -> their update and next memory."""


class AutogradWindow:
    """Each step leaves its gradient and memory, and the graph of its forward where all steps' graphs may be kept;
    otherwise the graph is made again on the way back, a block of coordinates at a time.

    step: the rule's forward; it changes nothing in place
    blocks: of coordinates that may be differentiated one by one
    keeps_graphs: whether steps leave their graphs
    """

    def __init__(
        self, step: Step, parameters: Sequence[nn.Parameter], blocks: Sequence[slice], *, keeps_graphs: bool
    ) -> None:
        self._step = step
        self._parameters = tuple(parameters)
        self._blocks = blocks
        self._keeps_graphs = keeps_graphs
        self._steps: list[_Step] = []
        self._worth: list[list[Tensor]] = [[] for _ in blocks]  # of the memory after the step that is next, by block
        self._total: list[Tensor] = [torch.zeros_like(parameter) for parameter in self._parameters]

    def kept(self, memory: Memory) -> Memory:
        return memory

    def step(self, theta: Tensor, gradient: Tensor, memory: Memory) -> Memory:
        made = _Step(gradient.clone(), memory)
        if self._keeps_graphs:
            graph = _Graph(self._step, made, slice(None))
            made.graph, update, memory = graph, graph.update.detach(), tuple(each.detach() for each in graph.after)
        else:
            with torch.no_grad():
                update, memory = self._step(gradient, memory, slice(None))
        theta += update
        self._steps.append(made)
        return memory

    def back(self, worth: Tensor) -> Tensor:
        made = self._steps.pop()
        if made.graph is not None:
            return self._back_in(made.graph, worth, 0)
        q = torch.empty_like(worth)
        for number, block in enumerate(self._blocks):
            q[block] = self._back_in(_Graph(self._step, made, block), worth[block], number)
        return q

    def gradient(self) -> Tensor:
        return torch.cat([piece.reshape(-1) for piece in self._total])

    def _back_in(self, graph: _Graph, worth: Tensor, block: int) -> Tensor:
        outputs, worths = [graph.update], [worth]
        for after, each in zip(graph.after, self._worth[block], strict=False):  # empty behind the last step
            if after.requires_grad:
                outputs.append(after)
                worths.append(each)
        inputs = [*self._parameters, *graph.before, graph.gradient]
        *found, q = torch.autograd.grad(outputs, inputs, worths, allow_unused=True, materialize_grads=True)
        for total, piece in zip(self._total, found, strict=False):
            total += piece
        self._worth[block] = found[len(self._parameters) :]
        return q


class _Step:
    """What a step leaves."""

    def __init__(self, gradient: Tensor, memory: Memory) -> None:
        self.gradient = gradient
        self.memory = memory
        self.graph: _Graph | None = None


class _Graph:
    """A step's forward with autograd's graph of it, between tensors that are cut from the steps around it."""

    def __init__(self, step: Step, made: _Step, block: slice) -> None:
        self.gradient = made.gradient[block].detach().requires_grad_()
        self.before = tuple(each[block].detach().requires_grad_() for each in made.memory)
        with torch.enable_grad():
            self.update, self.after = step(self.gradient, self.before, block)
