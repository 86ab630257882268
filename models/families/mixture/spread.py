"""What varies within a family, and the combinations that are drawn of it. Nothing here imports torch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, Strict, model_validator

from models.task_spec import Spec, TaskSpec

LAYERS = ("width", "depth")
"""What varies of `hidden`, where a kind has it: so many layers, each of so many units."""

_Number = Annotated[int, Strict()] | Annotated[float, Strict()]
_Scalar = Annotated[bool, Strict()] | _Number | Annotated[str, Strict(), Field(max_length=64)] | None
Values = Annotated[
    tuple[_Scalar | Annotated[tuple[_Number, ...], Field(max_length=16)], ...], Field(min_length=1, max_length=32)
]


class Range(Spec):
    """Numbers between two; whole ones where both ends are whole."""

    low: _Number
    high: _Number
    log: bool = Field(True, description="Whether their logarithm is uniform. Needs ends above 0.")

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} is to be less than high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low} is to be above 0 where log is true; send log false")
        return self

    def at(self, share: float) -> float:
        """The number at this share, 0 to 1, of the range."""
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        low, high = (self.low - 0.5, self.high + 0.5) if whole else (float(self.low), float(self.high))
        found = low * (high / low) ** share if self.log else low + (high - low) * share
        return max(self.low, min(self.high, math.floor(found + 0.5))) if whole else found


Varied = Values | Range


def combinations(vary: Mapping[str, Varied], draws: int, seed: int) -> tuple[dict[str, Any], ...]:
    """`draws` values of every field. Each field's are spread evenly over its range, or over its values, in an order of
    its own (a Latin hypercube), whatever the order of the fields."""
    found: list[dict[str, Any]] = [{} for _ in range(draws)]
    for name, varied in vary.items():
        order = sorted(range(draws), key=lambda place, name=name: _share(seed, name, "order", place))  # type: ignore[misc]
        for number, place in enumerate(order):
            share = (place + _share(seed, name, "within", number)) / draws
            found[number][name] = varied.at(share) if isinstance(varied, Range) else varied[int(share * len(varied))]
    return tuple(found)


def varied(tasks: TaskSpec, values: Mapping[str, Any]) -> TaskSpec:
    """The tasks with these values of their fields. Raises pydantic.ValidationError where one does not fit."""
    fields = {name: getattr(tasks, name) for name in type(tasks).model_fields}
    changes = {name: value for name, value in values.items() if name not in LAYERS}
    if values.keys() & {*LAYERS}:
        hidden = tuple(fields["hidden"]) or (1,)
        changes["hidden"] = (values.get("width", hidden[0]),) * int(values.get("depth", len(hidden)))
    return type(tasks).model_validate(fields | changes)


def _share(*parts: object) -> float:
    """A uniform number in [0, 1) that the parts decide, the same on every machine."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") / 2.0**64
