"""`TorchAxis`: steps through torch, on any device and for any rule."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import final

import torch
from torch import Tensor

from gradsmith.axes.base import Axis, Home
from gradsmith.rules import Rule, Segments, State
from gradsmith.rules.resting import resting
from gradsmith.rules.shapes import side_numbers

CHUNK = {"cpu": 8_192}
"""Coordinates that a rule sees at once, by type of device. It bounds what a step takes for the moment, 1.2 KB for a
coordinate of the 2x20 LSTM: 10 MB that stay in a CPU's cache; elsewhere 300 MB, by which launches cost nothing."""
CHUNK_ELSEWHERE = 262_144

Part = tuple[int, int, int]
"""A parameter's number, and from where to where in it."""


@final
class TorchAxis(Axis):
    """rule: on the axis' device and in its precision. A rule whose coordinates see one another gets them all at once,
    those that rest left out; one that is coordinatewise gets them in chunks.
    shapes: of the parameters, for a rule that asks; by default each is a vector
    steps: how many there will be, where that is known. Raises ValueError where the rule needs them."""

    def __init__(
        self,
        home: Home,
        stored_in: torch.dtype,
        sizes: Sequence[int],
        rule: Rule,
        steps: int | None = None,
        shapes: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__(home, stored_in, sizes)
        self._rule = rule
        self._shapes = [tuple(shape) for shape in shapes or [(size,) for size in sizes]]
        self._memory = rule.plan(rule.memory_for(self._shapes, dtype=stored_in, device=home.device), steps)
        self._wide = len(self._memory) - rule.of_tensors - rule.of_sides  # so many have a row for each coordinate
        self._sides = [side_numbers(shape) if rule.of_sides else 0 for shape in self._shapes]
        self._side_starts = (0, *accumulate(self._sides))[:-1]

    def read(self, number: int) -> State:
        found = (tensor[where] for tensor, where in zip(self._memory, self._places(number), strict=True))
        return tuple(tensor.t().clone(memory_format=torch.contiguous_format).t() for tensor in found)

    def write(self, number: int, memory: State) -> None:
        for mine, where, given in zip(self._memory, self._places(number), memory, strict=True):
            mine[where] = given

    def _places(self, number: int) -> list[slice]:
        """Which rows of each tensor of the memory are a parameter's."""
        where = slice(self.starts[number], self.starts[number] + self.sizes[number])
        sides = slice(self._side_starts[number], self._side_starts[number] + self._sides[number])
        of_tensors = [slice(number, number + 1)] * self._rule.of_tensors
        return [where] * self._wide + [sides] * self._rule.of_sides + of_tensors

    def step(self, parameters: Sequence[Tensor | None], rates: Sequence[float]) -> None:
        moving = {number: parameter for number, parameter in enumerate(parameters) if parameter is not None}
        gradients, targets = {}, {}
        for number, parameter in moving.items():
            assert parameter.grad is not None
            gradients[number] = parameter.grad.reshape(-1)
            in_a_row = parameter.is_contiguous()
            targets[number] = parameter.view(-1) if in_a_row else parameter.new_zeros(parameter.numel())
        for batch in self._batches(moving):
            pieces = [gradients[number][begin:end] for number, begin, end in batch]
            gradient = torch.cat([piece.to(self.home.device, self.home.computes_in) for piece in pieces])
            spans, rows = self._spans(batch), [number for number, _, _ in batch]
            before = self._gathered(spans, rows)
            shrinkage = self._rule.shrinkage(before)
            if shrinkage is not None:
                for number, share in zip(rows, shrinkage.tolist(), strict=True):
                    moving[number].mul_(1 - rates[number] * share)
            update, memory = self._rule(gradient, before, self._segments(batch))
            if not self._rule.rests:
                update, own = resting(gradient, before[: self._wide], update, memory[: self._wide])
                memory = (*own, *memory[self._wide :])
            changes = torch.split(update, [end - begin for _, begin, end in batch])
            for (number, begin, end), change in zip(batch, changes, strict=True):
                targets[number][begin:end].add_((rates[number] * change).to(targets[number].dtype))
            self._scatter(memory, spans, rows)
        for number, parameter in moving.items():
            if not parameter.is_contiguous():
                parameter.add_(targets[number].view(parameter.shape))

    def _batches(self, numbers: Iterable[int]) -> Iterator[list[Part]]:
        most = CHUNK.get(self.home.device.type, CHUNK_ELSEWHERE) if self._rule.coordinatewise else sys.maxsize
        batch: list[Part] = []
        room = most
        for number in numbers:
            begin, size = 0, self.sizes[number]
            while begin < size:
                end = min(size, begin + room)
                batch.append((number, begin, end))
                room -= end - begin
                begin = end
                if not room:
                    yield batch
                    batch, room = [], most
        if batch:
            yield batch

    def _segments(self, batch: Sequence[Part]) -> Segments | None:
        """Where one parameter ends and the next begins, for a rule that looks across coordinates."""
        if self._rule.coordinatewise:
            return None
        sizes = [end - begin for _, begin, end in batch]
        shapes = [self._shapes[number] for number, _, _ in batch]
        return Segments.repeated(sizes, sum(sizes), self.home.device, shapes)

    def _spans(self, batch: Sequence[Part]) -> list[slice]:
        """Where on the axis the parts lie; neighbours become one."""
        spans: list[slice] = []
        for number, begin, end in batch:
            start, stop = self.starts[number] + begin, self.starts[number] + end
            if spans and spans[-1].stop == start:
                start = spans.pop().start
            spans.append(slice(start, stop))
        return spans

    def _gathered(self, spans: Sequence[slice], rows: Sequence[int]) -> State:
        # Joined along the long axis of the transposed tensors, which is how rules keep them.
        columns = [
            tensor[spans[0]] if len(spans) == 1 else torch.cat([tensor[span].t() for span in spans], dim=1).t()
            for tensor in self._memory[: self._wide]
        ]
        of_tensors = self._wide + self._rule.of_sides
        columns += [
            torch.cat([tensor[self._places(number)[self._wide]] for number in rows])
            for tensor in self._memory[self._wide : of_tensors]
        ]
        columns += [tensor[rows] for tensor in self._memory[of_tensors:]]
        return tuple(column.to(self.home.computes_in) for column in columns)

    def _scatter(self, memory: State, spans: Sequence[slice], rows: Sequence[int]) -> None:
        for mine, found in zip(self._memory[: self._wide], memory, strict=False):
            pieces = torch.split(found, [span.stop - span.start for span in spans])
            for span, piece in zip(spans, pieces, strict=True):
                mine[span] = piece
        of_tensors = self._wide + self._rule.of_sides
        for mine, found in zip(self._memory[self._wide : of_tensors], memory[self._wide : of_tensors], strict=True):
            pieces = torch.split(found, [self._sides[number] for number in rows])
            for number, piece in zip(rows, pieces, strict=True):
                mine[self._places(number)[self._wide]] = piece
        for mine, found in zip(self._memory[of_tensors:], memory[of_tensors:], strict=True):
            mine[rows] = found
