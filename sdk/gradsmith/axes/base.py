"""`Axis`: parameters laid end to end, with their memory; `Home`: which may share one; `Place`: where one lies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, final, overload

import torch
from torch import Tensor

from gradsmith.rules import State


class Home(NamedTuple):
    """Parameters of one home may share an axis.

    bucket: the number of the parameter group where the rule's coordinates see each other, else 0
    device, computes_in: where the parameters are and in which precision the rule runs for them
    rule: the place of their rule among those of the optimizer
    """

    bucket: int
    device: torch.device
    computes_in: torch.dtype
    rule: int = 0

    def suits(self, parameter: Tensor, bucket: int, rule: int) -> bool:
        """Whether it is this parameter's. Asked for each parameter in each step."""
        double = parameter.dtype is torch.float64
        return (
            parameter.device == self.device
            and double is (self.computes_in is torch.float64)
            and bucket == self.bucket
            and rule == self.rule
        )


class Axis(ABC):
    """Parameters end to end on one axis of coordinates: the rule's memory for all of them, and its steps.

    The sizes are fixed; parameters that come later lie on an axis of their own. A step may leave out any of them.

    stored_in: the precision of the memory between steps
    sizes: coordinates of each parameter; starts: the first coordinate of each
    """

    def __init__(self, home: Home, stored_in: torch.dtype, sizes: Sequence[int]) -> None:
        self.home = home
        self.stored_in = stored_in
        self.sizes = tuple(sizes)
        self.starts = (0, *accumulate(sizes))[:-1]
        self.coordinates = sum(sizes)

    @abstractmethod
    def read(self, number: int) -> State:
        """A copy of the memory of parameter `number`, as the rule has it: tensors (coordinates, width) of
        `stored_in`, in the same layout whatever the axis does inside."""

    @abstractmethod
    def write(self, number: int, memory: State) -> None:
        """Take over the memory of parameter `number`, from any device and in any precision."""

    @abstractmethod
    def step(self, parameters: Sequence[Tensor | None], rates: Sequence[float]) -> None:
        """One step of each parameter by its gradient, in place; None, in the place of a parameter: it rests.

        A coordinate that has never had a gradient other than zero does not move, and its memory stays zero.
        rates: a factor on the update of each parameter

        The gradients are dense and of the parameters' sizes; the caller has looked.
        """


@final
class Place(Sequence[Tensor]):
    """What the optimizer's state holds for a parameter: its place on an axis, readable as the tuple of tensors that
    the rule's memory is. Each look makes a copy. Copied or pickled, it becomes that tuple; and so does what is built
    from tensors, `Place(tensors)`, because code that maps over containers builds the container's type anew."""

    __slots__ = ("axis", "number")

    def __new__(cls, axis: Axis | Iterable[Tensor], number: int | None = None) -> Any:  # noqa: ARG004
        return object.__new__(cls) if isinstance(axis, Axis) else tuple(axis)

    def __init__(self, axis: Axis, number: int) -> None:
        self.axis = axis
        self.number = number

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> State: ...

    def __getitem__(self, index: int | slice) -> Tensor | State:
        return self.axis.read(self.number)[index]

    def __len__(self) -> int:
        return len(self.axis.read(self.number))

    def __iter__(self) -> Any:  # one copy for all of the tensors
        return iter(self.axis.read(self.number))

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (list(self),)
