"""`NativeAxis`: steps by the compiled kernel, one call for all parameters."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, final

import torch
from torch import Tensor

from gradsmith.axes.addresses import Addresses, address
from gradsmith.axes.base import Axis, Home
from gradsmith.axes.plain_torch import TorchAxis
from gradsmith.rules import Rule, State
from gradsmith.rules.kernels.native import NativeKernel

_BLOCKS_AT_ONCE = 4096  # when memory changes its layout: 20 to 40 MB for the moment


class Prepared(NamedTuple):
    """A kernel, and a rule's weights as it wants them."""

    kernel: NativeKernel
    weights: Tensor


@final
class NativeAxis(Axis):
    """An axis on the CPU, in float32, for rules with a compiled kernel. The memory lies in the kernel's blocks,
    (blocks, rows, BLOCK), without a gap between parameters: one block may hold several small ones.

    Contiguous float32 parameters are read and written in place. Their addresses are looked up in each step, so
    `parameter.data` may be replaced at any time. Other parameters go through a copy.

    threads: None: as many as torch uses. The results' bits do not depend on it, unless parameters overlap in part
    """

    def __init__(
        self, home: Home, stored_in: torch.dtype, sizes: Sequence[int], prepared: Prepared, threads: int | None
    ) -> None:
        super().__init__(home, stored_in, sizes)
        self._kernel, self._weights = prepared
        self._threads = threads
        self._ends = array("q", accumulate(sizes))
        self._block, self._hidden = self._kernel.block, self._kernel.hidden_size
        self._rows = self._kernel.initial_state(0).shape[1]
        self._memory = torch.zeros(
            -(-self.coordinates // self._block), self._rows, self._block, dtype=stored_in, device="cpu"
        )

    def read(self, number: int) -> State:
        rows = torch.empty(self._rows, self.sizes[number], dtype=self.stored_in, device="cpu")
        for blocks, inside, outside in self._pieces(number):
            packed = self._memory[blocks]
            rows[:, outside] = packed.transpose(0, 1).reshape(self._rows, -1)[:, inside]
        return tuple(rows[first : first + self._hidden].t() for first in range(0, self._rows, self._hidden))

    def write(self, number: int, memory: State) -> None:
        for blocks, inside, outside in self._pieces(number):
            packed = self._memory[blocks].transpose(0, 1)
            rows = packed.clone(memory_format=torch.contiguous_format).view(self._rows, -1)
            rows[:, inside] = torch.cat([tensor[outside].t().to("cpu", self.stored_in) for tensor in memory])
            packed.copy_(rows.view(packed.shape))

    def _pieces(self, number: int) -> Iterator[tuple[slice, slice, slice]]:
        """Some blocks, which of their coordinates are the parameter's, and which of the parameter's these are."""
        start, stop, block = self.starts[number], self.starts[number] + self.sizes[number], self._block
        for first in range(start // block, -(-stop // block), _BLOCKS_AT_ONCE):
            last = min(first + _BLOCKS_AT_ONCE, -(-stop // block))
            begin, end = max(start, first * block), min(stop, last * block)
            yield (
                slice(first, last),
                slice(begin - first * block, end - first * block),
                slice(begin - start, end - start),
            )

    def step(self, parameters: Sequence[Tensor | None], rates: Sequence[float]) -> None:
        moving, factors = Addresses(parameters, self.sizes), array("f", rates)
        failed = self._kernel.library.step_axis(
            *(self._weights.data_ptr(), len(parameters), address(self._ends)),
            *(address(moving.gradients), address(moving.values), address(factors), self._memory.data_ptr()),
            *(self.stored_in == torch.bfloat16, self._threads or torch.get_num_threads()),
        )
        if failed:
            raise MemoryError("the native kernel could not get its working memory for a step; free some memory")
        moving.finish()


def agrees_with_torch(prepared: Prepared, rule: Rule) -> bool:
    """A trial of two steps on a block and a bit, in both precisions of memory: compilers have bugs, and not every
    instruction set was there when the source was written. Milliseconds."""
    sizes = (prepared.kernel.block + 3, 5)
    home = Home(0, torch.device("cpu"), torch.float32)
    gradients = torch.randn(
        *(2, sum(sizes)), generator=torch.Generator("cpu").manual_seed(0), dtype=torch.float32, device="cpu"
    )
    for stored_in, allowed in ((torch.float32, 1e-4), (torch.bfloat16, 3e-2)):
        axes = (NativeAxis(home, stored_in, sizes, prepared, 1), TorchAxis(home, stored_in, sizes, rule))
        results = []
        for axis in axes:
            parameters = [torch.zeros(size, dtype=torch.float32, device="cpu") for size in sizes]
            for step, gradient in enumerate(gradients):
                for parameter, piece in zip(parameters, torch.split(gradient, list(sizes)), strict=True):
                    parameter.grad = piece
                axis.step([parameters[0], None if step == 0 else parameters[1]], (1.0, 0.5))
            memory = [tensor.float().reshape(-1) for number in range(2) for tensor in axis.read(number)]
            results.append((torch.cat(parameters), torch.cat(memory)))
        for found, expected in zip(*results, strict=True):
            if not (found - expected).abs().max() <= allowed * expected.abs().max():
                return False
    return True
