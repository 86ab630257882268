"""A user's data set as the spec of a family knows it: enough for its coordinates and its memory without the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

from pydantic import Field

from models.task_spec import Spec, TaskSpec

FileFormat = Literal["csv", "npz", "safetensors"]
HELD_OUT_SHARE = 0.25
"""How many of a group's rows are held out, at least one."""
LEAST_ROWS = 4
"""Groups with fewer rows are left out: one row is held out, and the rest must part in two."""
LEAST_GROUPS = 5
"""Groups that part in training, validation and test."""


class Table(Spec):
    """A data set of the workspace, with the roles of its columns. A request sends its name; the server fills in the
    rest, so that a family keeps the very bytes that it was declared with."""

    name: str = Field(description="Its name in the workspace.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the file's bytes.")
    format: FileFormat
    inputs: tuple[str, ...] = Field(min_length=1, description="Columns that a model sees.")
    target: str = Field(description="The column that it predicts.")
    group: str | None = Field(None, description="The column that says which rows belong to which task.")
    classes: tuple[str, ...] = Field((), description="The target's values in order, where they are few.")
    target_lowest: float | None = Field(None, description="The lowest target; null where targets are words.")
    target_is_whole: bool = Field(False, description="Whether all targets are whole numbers.")
    rows: int = Field(ge=1, description="Rows with a target and a group.")
    groups: int = Field(ge=1, description="Groups that are large enough; 1 where there is no group.")
    largest: int = Field(ge=1, description="Rows of the largest group.")

    @property
    def most_training_rows(self) -> int:
        """Rows of the largest task, without those that are held out."""
        return self.largest - held_out_rows(self.largest)


def held_out_rows(rows: int) -> int:
    """How many of a group's rows are held out."""
    return max(1, round(HELD_OUT_SHARE * rows))


def table_fields(spec: type[TaskSpec]) -> dict[str, tuple[str, ...]]:
    """The fields of a kind that hold a Table, which a request gives by name; with the names of the server's own data
    sets that a field takes beside."""
    fields = {name: field.annotation for name, field in spec.model_fields.items() if _holds_table(field.annotation)}
    return {name: tuple(_names(annotation)) for name, annotation in fields.items()}


def _names(annotation: Any) -> Iterator[str]:
    for argument in get_args(annotation):
        if isinstance(argument, str):
            yield argument
        else:
            yield from _names(argument)


def _holds_table(annotation: Any) -> bool:
    return annotation is Table or any(map(_holds_table, get_args(annotation)))
