"""`TensorAxis`: steps of a rule that looks at tensors by the compiled kernel, one call for all parameters."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from gradsmith.axes.addresses import Addresses, address
from gradsmith.axes.base import Axis, Home
from gradsmith.rules import Rule, Segments, State
from gradsmith.rules.kernels.native import TensorKernel


@final
class TensorAxis(Axis):
    """An axis on the CPU, in float32, memory included. The memory is the rule's own, feature-major.

    threads: None: as many as torch uses. The results' bits do not depend on it, unless parameters overlap in part
    steps: how many there will be, where that is known. Raises ValueError where the rule needs them.
    shapes: of the parameters, for a rule that asks; by default each is a vector
    """

    def __init__(
        self,
        home: Home,
        sizes: Sequence[int],
        rule: Rule,
        kernel: TensorKernel,
        threads: int | None,
        steps: int | None = None,
        shapes: Sequence[tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__(home, torch.float32, sizes)
        self._kernel, self._weights, self._threads = kernel, kernel.weights(rule), threads
        self._memory = rule.plan(rule.initial_state(self.coordinates, tensors=len(self.sizes), device="cpu"), steps)
        self._lengths = kernel.sizes(Segments(tuple(self.sizes), shapes=None if shapes is None else tuple(shapes)))

    def read(self, number: int) -> State:
        *wide, numbers = self._memory
        where = slice(self.starts[number], self.starts[number] + self.sizes[number])
        own = (tensor[where].t().clone(memory_format=torch.contiguous_format).t() for tensor in wide)
        return (*own, numbers[number : number + 1].clone())

    def write(self, number: int, memory: State) -> None:
        *wide, numbers = self._memory
        where = slice(self.starts[number], self.starts[number] + self.sizes[number])
        for mine, given in zip(wide, memory, strict=False):
            mine[where] = given
        numbers[number : number + 1] = memory[-1]

    def step(self, parameters: Sequence[Tensor | None], rates: Sequence[float]) -> None:
        moving, factors = Addresses(parameters, self.sizes), array("f", rates)
        self._kernel.step_tensors(
            *(self._weights, self._lengths, address(moving.gradients), address(moving.values), address(factors)),
            *(self._memory, self._threads or torch.get_num_threads()),
        )
        moving.finish()
