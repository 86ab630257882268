"""Where the numbers of parameters and gradients are, for a compiled kernel that reads and writes them in place."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_CPU = torch.device("cpu")


class Addresses:
    """The addresses of one step's parameters and gradients, 0 for a parameter that rests or is empty.

    Contiguous float32 parameters are written in place. Others, and a second parameter with the same numbers, which two
    threads would write at once, get a change of their own, that `finish` adds.

    device: where the kernel runs
    """

    def __init__(self, parameters: Sequence[Tensor | None], sizes: Sequence[int], device: torch.device = _CPU) -> None:
        nothing = bytes(8 * len(parameters))
        self.gradients, self.values = array("q", nothing), array("q", nothing)
        self._moved: list[Tensor] = []
        self._aside: list[tuple[Tensor, Tensor]] = []
        self._alive: list[Tensor] = []  # copies that the addresses point into
        taken: set[int] = set()
        for number, parameter in enumerate(parameters):
            if parameter is None or not sizes[number]:
                continue
            gradient = parameter.grad
            assert gradient is not None
            if not _in_place(gradient, device) or gradient.is_neg():
                gradient = gradient.to(device, torch.float32).resolve_neg().contiguous()
                self._alive.append(gradient)
            self.gradients[number] = gradient.data_ptr()
            address = parameter.data_ptr()
            if _in_place(parameter, device) and address not in taken:
                taken.add(address)
                self._moved.append(parameter)
            else:
                change = torch.zeros(parameter.shape, dtype=torch.float32, device=device)
                self._aside.append((parameter, change))
                address = change.data_ptr()
            self.values[number] = address

    def finish(self) -> None:
        """The kernel has written: tell autograd, and add what was put aside."""
        torch.autograd.graph.increment_version(self._moved)
        for parameter, change in self._aside:
            parameter.add_(change.to(parameter))


def address(numbers: array[int] | array[float]) -> int:
    """The address of the first number."""
    return numbers.buffer_info()[0]


def _in_place(tensor: Tensor, device: torch.device) -> bool:
    """Whether the numbers can be used where they are. Subclasses of tensors may keep theirs elsewhere."""
    return (
        tensor.dtype is torch.float32
        and tensor.device == device
        and tensor.is_contiguous()
        and type(tensor) in (Tensor, nn.Parameter)
    )
