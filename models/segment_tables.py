"""`Tables`: sums over tensors, and values spread over them, for a window of many steps on the same tensors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from gradsmith.rules.segments import Segments


@final
@dataclass(frozen=True)
class Tables(Segments):
    """Segments whose sums are one product of matrices and whose values are spread by one gather: faster for many small
    tensors, at the price of a table, (coordinates of a task, its tensors)."""

    def lengths(self, like: Tensor) -> Tensor:
        return self._lengths if self._lengths.dtype == like.dtype else self._lengths.to(like)

    def sums(self, values: Tensor) -> Tensor:
        by_task = values.reshape(*values.shape[:-1], self.count, sum(self.sizes))
        members = self._members if self._members.dtype == values.dtype else self._members.to(values)
        return (by_task @ members).flatten(-2)

    def spread(self, values: Tensor) -> Tensor:
        return values.index_select(-1, self.tensors)

    @cached_property
    def _lengths(self) -> Tensor:
        return super().lengths(torch.empty(0, dtype=torch.float32, device=self.device))

    @cached_property
    def _members(self) -> Tensor:
        each = torch.arange(len(self.sizes), device=self.device).repeat_interleave(
            torch.tensor(self.sizes, device=self.device)
        )
        return torch.nn.functional.one_hot(each, len(self.sizes)).float()
