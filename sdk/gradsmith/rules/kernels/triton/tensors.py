"""Where the tensors of an axis lie for the Triton programs, and which of them move. No Triton is needed here."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import final

import torch
from torch import Tensor

from gradsmith.rules.base import Rule
from gradsmith.rules.hyper import HyperRule
from gradsmith.rules.kernels.sizes import MLPProgram
from gradsmith.rules.mlp import MLPRule

MOST_HIDDEN = {"hyper": 64, "mlp": 32}
"""Units of a rule's network; a layer's matrix is one tile of a program. Larger ones go through torch."""

ALIGNED_TO = 16
"""Bytes for wide loads of gradients and parameters, and coordinates at which a tensor may begin in the state."""


@final
@dataclass(frozen=True)
class Places:
    """Tensors one after another, each from a multiple of `ALIGNED_TO` on.

    sizes: their coordinates; starts: where each begins in a row of the state; stride: the length of a row
    of_blocks: (blocks,) int32, the tensor of each block of coordinates
    table: (tensors, 3) int64: size, start, and the number of the first block
    """

    sizes: tuple[int, ...]
    starts: tuple[int, ...]
    stride: int
    of_blocks: Tensor
    table: Tensor

    @classmethod
    def of(cls, sizes: Sequence[int], block: int, device: torch.device) -> Places:
        """block: coordinates of a block"""
        starts = (0, *accumulate(-(-size // ALIGNED_TO) * ALIGNED_TO for size in sizes))
        blocks = torch.tensor([-(-size // block) for size in sizes], dtype=torch.int64, device="cpu")
        table = torch.stack(
            (
                torch.tensor(sizes, dtype=torch.int64, device="cpu"),
                torch.tensor(starts[:-1], dtype=torch.int64, device="cpu"),
                blocks.cumsum(0) - blocks,
            ),
            dim=1,
        )
        of_blocks = torch.arange(len(sizes), dtype=torch.int32, device="cpu").repeat_interleave(blocks)
        return cls(tuple(sizes), starts[:-1], starts[-1], of_blocks.to(device), table.to(device))

    @property
    def tensors(self) -> int:
        return len(self.sizes)

    @property
    def blocks(self) -> int:
        return self.of_blocks.shape[0]


@final
class Moving:
    """The table of what moves in a step, (tensors, 3) int64 on the device: the addresses of a tensor's gradient and of
    its parameter, and the bits of the float32 factor on its update.

    It is copied from pinned memory without waiting for the device, and only where it differs from the last one: the
    allocator gives gradients the places that they had. A step that is captured in a CUDA graph copies from memory that
    was pinned before and stays, for each replay reads it.
    """

    def __init__(self, tensors: int, device: torch.device) -> None:
        self._device = device
        self._shape = (tensors, 3)
        self._last: list[int] | None = None
        self._table = torch.zeros(self._shape, dtype=torch.int64, device=device)
        self._pinned = device.type == "cuda"
        self._spare: Tensor | None = self._room()
        self._captured: list[Tensor] = []  # what graphs copy from

    def table(self, gradients: Iterable[int], parameters: Iterable[int], factors: Iterable[float]) -> Tensor:
        """The table with these numbers, (tensors,) each."""
        rows = [
            number
            for gradient, parameter, factor in zip(gradients, parameters, factors, strict=True)
            for number in (gradient, parameter, _bits(factor))
        ]
        capturing = self._pinned and torch.cuda.is_current_stream_capturing()
        # A graph that was captured may have copied other numbers when it ran last.
        if rows != self._last or capturing or self._captured:
            self._copy(rows, capturing)
            self._last = rows
        return self._table

    def _copy(self, rows: list[int], capturing: bool) -> None:
        room = self._spare if capturing and self._spare is not None else self._room()
        room.copy_(torch.tensor(rows, dtype=torch.int64, device="cpu").view(self._shape))
        self._table.copy_(room, non_blocking=True)
        if capturing:
            self._captured.append(room)
            self._spare = None
        elif self._spare is None:
            self._spare = self._room()

    def _room(self) -> Tensor:
        return torch.zeros(self._shape, dtype=torch.int64, device="cpu", pin_memory=self._pinned)


def refused(rule: Rule) -> str | None:
    """Why no Triton programs step this rule, as a clause about them; None where they do."""
    if not isinstance(rule, HyperRule | MLPRule):
        return f"it steps rules of the kinds {HyperRule.kind} and {MLPRule.kind} alone"
    if isinstance(rule, HyperRule) and rule.settings.direction != "adam":
        return "it has no Muon: it runs hyper rules with the direction adam alone"
    most = MOST_HIDDEN[rule.kind]
    if rule.settings.hidden_size > most:
        return f"it runs networks of at most {most} units of {rule.kind} rules"
    if rule.settings.program is None:
        return f"it runs mlp rules that look at tensors, with inputs from {', '.join(MLPProgram.known)} alone"
    return None


def aligned(addresses: Iterable[int]) -> bool:
    """Whether wide loads may be used for all of them."""
    return all(address % ALIGNED_TO == 0 for address in addresses)


def _bits(factor: float) -> int:
    """Those of a float32 number, as a signed int32."""
    return int(struct.unpack("i", struct.pack("f", factor))[0])
