"""`TritonAxis`: steps of a rule that looks at tensors on a CUDA device, three launches for all parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from gradsmith.axes.addresses import Addresses
from gradsmith.axes.base import Axis, Home
from gradsmith.rules import Rule, State
from gradsmith.rules.kernels.triton.tensors import Moving, aligned

if TYPE_CHECKING:
    from gradsmith.rules.kernels.triton.tensor_kernel import TritonTensorKernel


@final
class TritonAxis(Axis):
    """An axis on a CUDA device, in float32, memory included. No step waits for the device. After the first step others
    may be captured in a CUDA graph; a replay has the learning rates of the captured step.

    steps: how many there will be, where that is known. Raises ValueError where the rule needs them.
    """

    def __init__(
        self, home: Home, sizes: Sequence[int], rule: Rule, kernel: TritonTensorKernel, steps: int | None = None
    ) -> None:
        super().__init__(home, torch.float32, sizes)
        self._kernel, self._weights = kernel, kernel.weights(rule)
        self._places = kernel.places(self.sizes)
        self._state = kernel.state(self._places)
        self._numbers = rule.plan(rule.initial_state(0, tensors=len(self.sizes), device=home.device), steps)[-1]
        self._moving = Moving(len(self.sizes), home.device)

    def read(self, number: int) -> State:
        rows = self._rows(number).clone(memory_format=torch.contiguous_format)
        own = (each.t() for each in torch.split(rows, [width for width in self._kernel.rows if width]))
        return (*own, self._numbers[number : number + 1].clone())

    def write(self, number: int, memory: State) -> None:
        *wide, numbers = memory
        own = self._rows(number)
        own.copy_(torch.cat([tensor.t().to(own) for tensor in wide]))
        self._numbers[number : number + 1] = numbers

    def _rows(self, number: int) -> Tensor:
        start = self._places.starts[number]
        return self._state[:, start : start + self.sizes[number]]

    def step(self, parameters: Sequence[Tensor | None], rates: Sequence[float]) -> None:
        moving = Addresses(parameters, self.sizes, self.home.device)
        table = self._moving.table(moving.gradients, moving.values, rates)
        self._kernel.step(
            *(self._weights, self._places, table, self._state, self._numbers),
            aligned=aligned(moving.gradients) and aligned(moving.values),
        )
        moving.finish()
