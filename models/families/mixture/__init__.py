"""Mixtures: families made of other families with weights, and of distributions over their fields. Without torch."""

from __future__ import annotations

from dataclasses import fields
from functools import cached_property
from typing import ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from models.families.augmented import AugmentedSpec, Nested
from models.families.base import Costs, Kind, Part, TaskSpec
from models.families.mixture.spread import LAYERS, Varied, combinations, varied
from models.table_spec import Table
from models.task_spec import Spec, Weighted

MOST_MEMBERS, MOST_POINTS = 16, 64


class Member(Spec):
    """One family of a mixture."""

    family: str = Field("", max_length=64, description="The name that it was declared with; empty where it has none.")
    tasks: Nested = Field(
        description="In a request beside `family` the fields that change; without it tasks of any kind, with `kind`."
    )
    weight: float = Field(1.0, gt=0, le=1000, description="How often its tasks are drawn.")
    vary: dict[str, Varied] = Field(
        {},
        max_length=8,
        description="Fields of its tasks that vary: a list of values, or `low` and `high`. Where the kind has "
        "`hidden`, `width` and `depth` too: so many layers, each of so many units.",
    )
    scaling: float = Field(
        1.0, ge=1, le=1000, description="Coordinates have random scales, log-uniform from 1 / scaling to scaling."
    )
    convex: int = Field(
        0, ge=0, le=1000, description="So many coordinates are added, with a random convex function of them."
    )


class MixtureSpec(TaskSpec):
    """Tasks of several families, drawn by weight, and of combinations of what varies in them.

    Each member with something that varies stands for `draws` combinations, spread evenly over what varies and fixed
    once and for all; each trajectory of a training is of one of them. Equal ones count once, with their weights added.
    """

    nested: ClassVar[frozenset[str]] = frozenset({"families"})

    kind: Literal["mixture"] = "mixture"
    families: tuple[Member, ...] = Field(min_length=1, max_length=MOST_MEMBERS)
    draws: int = Field(
        8, ge=1, le=32, description=f"Combinations of what varies in a member; at most {MOST_POINTS} of all members."
    )
    seed: int = Field(0, ge=0, le=2**31, description="Draws the combinations.")

    @model_validator(mode="after")
    def _made_of_tasks_that_exist(self) -> Self:
        for number, member in enumerate(self.families):
            if isinstance(member.tasks, MixtureSpec):
                words = "families[{number}]: a mixture cannot be within another; send its families here"
                raise PydanticCustomError("mixture_within", words, {"number": number})
            have = {*type(member.tasks).model_fields} - {"kind", *member.tasks.nested}
            have |= {*LAYERS} if "hidden" in have else set()
            if unknown := sorted(member.vary.keys() - have):
                raise PydanticCustomError(
                    "unknown_field",
                    "families[{number}].vary: {kind} has no field {name}; there are {have}",
                    {
                        "number": number,
                        "kind": member.tasks.kind,
                        "name": repr(unknown[0]),
                        "have": ", ".join(sorted(have)),
                    },
                )
            if "hidden" in member.vary and member.vary.keys() & {*LAYERS}:
                words = "families[{number}].vary: width and depth make hidden; send either those or hidden"
                raise PydanticCustomError("twice", words, {"number": number})
        if (count := len(self.weighted_points)) > MOST_POINTS:
            raise PydanticCustomError(
                "too_many",
                "the families and what varies in them make {count} distributions, and at most {most} fit; send fewer "
                "draws",
                {"count": count, "most": MOST_POINTS},
            )
        return self

    @cached_property
    def weighted_points(self) -> tuple[Weighted, ...]:
        found: dict[str, Weighted] = {}
        for number, member in enumerate(self.families):
            for point in self._points_of(number, member):
                key = point.tasks.model_dump_json()
                found[key] = point._replace(weight=point.weight + found[key].weight) if key in found else point
        return tuple(found.values())

    def _points_of(self, number: int, member: Member) -> list[Weighted]:
        if isinstance(member.tasks, AugmentedSpec) and (member.vary or member.scaling > 1 or member.convex):
            words = "families[{number}]: an augmented family takes no vary, scaling or convex; send its own tasks"
            raise PydanticCustomError("augmented", words, {"number": number})
        chosen = combinations(member.vary, self.draws, self.seed) if member.vary else ({},)
        found = []
        for values in chosen:
            try:
                tasks = varied(member.tasks, values) if values else member.tasks
            except ValidationError as error:
                [wrong, *_] = error.errors(include_url=False)
                told = {"number": number, "values": repr(values), "reason": wrong["msg"]}
                words = "families[{number}].vary: {values} do not fit: {reason}"
                raise PydanticCustomError("unfitting_values", words, told) from error
            if member.scaling > 1 or member.convex:
                tasks = AugmentedSpec(tasks=tasks, scaling=member.scaling, convex=member.convex)
            found.append(Weighted(member.family, tasks, member.weight / len(chosen)))
        return found

    @property
    def largest(self) -> TaskSpec:
        """The tasks with the most coordinates."""
        return max((point.tasks for point in self.weighted_points), key=lambda tasks: tasks.coordinates_per_task)

    def parts(self) -> tuple[Part, ...]:
        return self.largest.parts()

    def costs(self) -> Costs:
        """The most that a task of any family takes; data of all of them stay."""
        each = [(point.tasks.datasets, point.tasks.tables, point.tasks.costs()) for point in self.weighted_points]
        most = {field.name: max(getattr(costs, field.name) for _, _, costs in each) for field in fields(Costs)}
        data = {(datasets, tuple(table.sha256 for table in tables)): costs for datasets, tables, costs in each}
        return Costs(**most | {"resident_bytes": sum(costs.resident_bytes for costs in data.values())})

    @property
    def parts_data(self) -> bool:
        return all(point.tasks.parts_data for point in self.weighted_points)

    @property
    def noisy(self) -> bool:
        return any(point.tasks.noisy for point in self.weighted_points)

    @property
    def composite(self) -> bool:
        return all(point.tasks.composite for point in self.weighted_points)

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for point in self.weighted_points for name in point.tasks.datasets))

    @property
    def tables(self) -> tuple[Table, ...]:
        return tuple({table.sha256: table for point in self.weighted_points for table in point.tasks.tables}.values())


KIND = Kind(spec=MixtureSpec, tasks="models.families.mixture.tasks:MixtureFamily")
