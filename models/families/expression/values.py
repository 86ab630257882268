"""What a declared name holds: numbers drawn at random, or the same number everywhere. Needs no torch."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from models.families.base import Spec
from models.families.expression.program import Shape

Side = Annotated[int, Field(ge=1, le=10_000)]
_Number = Annotated[float, Field(ge=-1e6, le=1e6)]


class _Drawn(Spec):
    """An array whose entries are independent."""

    shape: tuple[Side, ...] = Field((), max_length=4, description="[] for one number, [20, 10] for 20 rows of 10.")

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        """All that decides its numbers, but for the seed."""
        return self.model_dump_json()


class Constant(_Drawn):
    """The same number in every entry and every task."""

    kind: Literal["constant"] = "constant"
    value: _Number = 0.0


class Normal(_Drawn):
    """Normal numbers."""

    kind: Literal["normal"] = "normal"
    mean: _Number = 0.0
    std: float = Field(1.0, ge=0, le=1e6)


class _Between(_Drawn):
    low: _Number
    high: _Number

    @model_validator(mode="after")
    def _in_order(self) -> _Between:
        if self.low >= self.high:
            raise PydanticCustomError(
                "order", "low is {low} and high {high}; low comes first", {"low": self.low, "high": self.high}
            )
        return self


class Uniform(_Between):
    """Numbers between low and high, each as likely."""

    kind: Literal["uniform"] = "uniform"
    low: _Number = 0.0
    high: _Number = 1.0


class LogUniform(_Between):
    """Numbers whose logarithm is uniform."""

    kind: Literal["loguniform"] = "loguniform"
    low: float = Field(gt=0, le=1e6)
    high: float = Field(gt=0, le=1e6)


class Integers(_Between):
    """Whole numbers from low up to, but not including, high."""

    kind: Literal["integers"] = "integers"
    low: int = Field(0, ge=-1_000_000, le=1_000_000)
    high: int = Field(2, ge=-1_000_000, le=1_000_000)


class Bernoulli(_Drawn):
    """1 with this probability, else 0. Times a normal draw, it is a sparse one."""

    kind: Literal["bernoulli"] = "bernoulli"
    probability: float = Field(0.5, ge=0, le=1)


Start = Annotated[Constant | Normal | Uniform | LogUniform | Integers | Bernoulli, Field(discriminator="kind")]
"""Where a parameter begins."""


class _EachTime(Spec):
    each: Literal["task", "step"] = Field(
        "task", description="Drawn once for a task, or anew at every step, as a minibatch and its noise are."
    )


class NormalDraw(_EachTime, Normal):
    """Normal numbers."""


class UniformDraw(_EachTime, Uniform):
    """Numbers between low and high, each as likely."""


class LogUniformDraw(_EachTime, LogUniform):
    """Numbers whose logarithm is uniform."""


class IntegersDraw(_EachTime, Integers):
    """Whole numbers from low up to, but not including, high."""


class BernoulliDraw(_EachTime, Bernoulli):
    """1 with this probability, else 0. Times a normal draw, it is a sparse one."""


Draw = Annotated[NormalDraw | UniformDraw | LogUniformDraw | IntegersDraw | BernoulliDraw, Field(discriminator="kind")]
"""What is drawn at random for a task."""

Array = float | tuple[float, ...] | tuple[tuple[float, ...], ...]
"""Numbers written out: one, a vector or the rows of a matrix."""


def shape_of(array: Array) -> Shape:
    """Its shape. Raises ValueError where rows differ in length, or there are none."""
    if not isinstance(array, tuple):
        return ()
    if not array or array[0] == ():
        raise ValueError("an array has at least one entry")
    if not isinstance(array[0], tuple):
        return (len(array),)
    rows = {len(row) for row in array if isinstance(row, tuple)}
    if len(rows) > 1:
        raise ValueError(f"the rows of a matrix are of one length, not of {', '.join(map(str, sorted(rows)))}")
    return (len(array), rows.pop())
