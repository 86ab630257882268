"""Families with augmentations, the part without torch: tasks of another family, made harder at random."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field, WithJsonSchema, field_validator
from pydantic_core import PydanticCustomError

from models.families.base import Costs, Kind, Part, TaskSpec
from models.table_spec import Table
from models.task_spec import Tasks

Nested = Annotated[
    Tasks, WithJsonSchema({"type": "object", "description": "Tasks of any other kind, with their `kind`."})
]
"""Tasks within those of another family. Their JSON schema is left out: it would hold itself."""


class AugmentedSpec(TaskSpec):
    """Tasks of another family with random scales and a random convex function added, as in Lv, Jiang and Li 2017.

    An optimizer moves phi, where the family's own parameters are `scale * phi`, and `convex` coordinates more, whose
    mean squared distance from a point is added to the loss. Scales and point are drawn anew for each task.
    """

    nested: ClassVar[frozenset[str]] = frozenset({"tasks"})

    kind: Literal["augmented"] = "augmented"
    tasks: Nested = Field(description="What is augmented: tasks of another kind, an object with `kind`.")
    scaling: float = Field(
        1.0, ge=1, le=1000, description="A coordinate's scale is log-uniform from 1 / scaling to scaling."
    )
    convex: int = Field(0, ge=0, le=1000, description="Coordinates of the convex function; 0: there is none.")

    @field_validator("tasks")
    @classmethod
    def _one_distribution(cls, tasks: TaskSpec) -> TaskSpec:
        if tasks.nested:
            raise PydanticCustomError(
                "several_families", "{kind} cannot be augmented; augment what it is made of", {"kind": tasks.kind}
            )
        return tasks

    def parts(self) -> tuple[Part, ...]:
        extra = (Part("convex", (self.convex,), "vector"),) if self.convex else ()
        return (*self.tasks.parts(), *extra)

    def costs(self) -> Costs:
        """Scales of the family's coordinates, a point and a start of the others; a step has the family's parameters and
        gradient once more."""
        inner, d = self.tasks.costs(), self.tasks.coordinates_per_task
        return replace(
            inner,
            held=inner.held + d + 2 * self.convex,
            drawn=max(inner.drawn, d, self.convex),
            used=inner.used + 3 * d + 3 * self.convex,
        )

    @property
    def parts_data(self) -> bool:
        return bool(self.tasks.parts_data)

    @property
    def noisy(self) -> bool:
        return bool(self.tasks.noisy)

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(self.tasks.datasets)

    @property
    def tables(self) -> tuple[Table, ...]:
        return tuple(self.tasks.tables)


KIND = Kind(spec=AugmentedSpec, tasks="models.families.augmented.tasks:AugmentedFamily")
