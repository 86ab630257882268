"""The training of each trial: what POST /jobs would make of the same recipe."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, assert_never

from pydantic import ValidationError

from app.http.problems import FieldError, field_errors, invalid_request
from app.jobs.giving_way import fitting
from app.jobs.overrides import RecipeOverrides
from app.jobs.sweeps.axes import put, refused
from models.spec import (
    Axis,
    Choices,
    EvaluateSpec,
    FamilySpec,
    JobSpec,
    MetaTrainSpec,
    PreviewSpec,
    Recipe,
    Resources,
    SweepSpec,
    overridden,
)

_LOOKED_THROUGH = 200
"""Combinations in which a value is tried before it is refused."""
_NO_INTEGER = ("int_type", "int_from_float")


def child(spec: SweepSpec, values: Mapping[str, Any], meta_steps: int | None = None) -> MetaTrainSpec:
    """The training of a trial. values: by the fields' names; meta_steps: those of its rung. Raises ValidationError."""
    given, seed = copy.deepcopy(spec.given), spec.seed
    for axis in spec.space:
        if axis.path == ("seed",):
            seed = values[axis.name]
        else:
            put(given, axis.path[1:], values[axis.name])
    if meta_steps is not None:
        given["meta_steps"] = meta_steps
    return MetaTrainSpec(
        family=spec.family,
        seed=seed,
        recipe=recipe_of(spec.family, given, spec.resources),
        evaluate=False,
        evaluation=spec.evaluation,
        resources=spec.resources,
    )


def recipe_of(family: FamilySpec, given: Mapping[str, Any], resources: Resources) -> Recipe:
    """Raises ValidationError."""
    found: Recipe = overridden(family.recipe, fitting(family.recipe, given, resources.processes))
    return found


def runs_of(spec: JobSpec) -> list[JobSpec]:
    """The jobs of a worker that stand for a job where it is asked what it needs: itself, or children of a sweep."""
    match spec:
        case MetaTrainSpec() | EvaluateSpec() | PreviewSpec():
            return [spec]
        case SweepSpec():
            return [each.model_copy(update={"evaluate": spec.evaluate}) for each in corners(spec)]
        case _:
            assert_never(spec)


def corners(spec: SweepSpec) -> Iterator[MetaTrainSpec]:
    """The trainings that stand for all where it is asked what a worker can hold: the whole grid, else each value beside
    the first of the others. Those that no trial can be are left out."""
    first = tuple(axis.shown[0] for axis in spec.space)
    found: Iterator[tuple[Any, ...]] = spec.grid
    if spec.sampler != "grid":
        found = (
            (*first[:place], value, *first[place + 1 :])
            for place, axis in enumerate(spec.space)
            for value in axis.shown
        )
    for values in found:
        try:
            yield child(spec, named(spec.space, values))
        except ValidationError:
            continue


def named(axes: Sequence[Axis], values: Sequence[Any]) -> dict[str, Any]:
    return {axis.name: value for axis, value in zip(axes, values, strict=True)}


class Checked:
    """What a request sweeps, held against the family: each value has to be one that some training may have."""

    def __init__(self, family: FamilySpec, fixed: dict[str, Any], axes: Sequence[Axis], resources: Resources) -> None:
        """Raises Problem `invalid_request`, which points at the first value that no training may have, or whose scores
        would not compare with the others'."""
        self._family, self._fixed, self._resources = family, fixed, resources
        self.axes = tuple(axes)
        self.axes = tuple(self._in_its_numbers(axis) for axis in axes)
        found = self.recipe([axis.shown[0] for axis in self.axes])
        self.first = found if isinstance(found, Recipe) else self._fitting(0, 0)
        for place, axis in enumerate(self.axes):
            for index in range(len(axis.shown)):
                self._require_the_criterion(axis, self._fitting(place, index))

    def recipe(self, values: Sequence[Any]) -> Recipe | list[FieldError]:
        """That of a combination, or why there is none."""
        given = copy.deepcopy(self._fixed)
        for axis, value in zip(self.axes, values, strict=True):
            if axis.path != ("seed",):
                put(given, axis.path[1:], value)
        try:
            strict = RecipeOverrides.model_validate(given).model_dump(exclude_unset=True)
            return recipe_of(self._family, strict, self._resources)
        except ValidationError as error:
            return field_errors(error.errors(include_url=False), within=("recipe",), model=RecipeOverrides)

    def _fitting(self, place: int, index: int) -> Recipe:
        """The first recipe with this value of this axis. Raises Problem where the first combinations have none."""
        axis = self.axes[place]
        value = axis.shown[index]
        if axis.path == ("seed",) and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63):
            raise refused(("seed", str(index)), "seed", f"a seed is an integer from 0 to 2**63 - 1, not {value!r}")
        shown = [(value,) if each is axis else each.shown for each in self.axes]
        refusals: list[FieldError] = []
        for values in itertools.islice(itertools.product(*shown), _LOOKED_THROUGH):
            found = self.recipe(values)
            if isinstance(found, Recipe):
                return found
            refusals = refusals or found
        wrong, own = refusals[0], _pointer(axis)
        if axis.path == ("seed",) or not (wrong.pointer.startswith(own) or own.startswith(wrong.pointer)):
            raise invalid_request([wrong])  # of what is not swept
        end = (str(index) if isinstance(axis, Choices) else ("low", "high")[index],)
        message = wrong.message if wrong.pointer.startswith(own) else f"{wrong.message} ({wrong.pointer})"
        raise refused((*axis.path, *(() if wrong.code == "extra_forbidden" else end)), wrong.code, message)

    def _require_the_criterion(self, axis: Axis, recipe: Recipe) -> None:
        """Raises Problem where the scores of two trials would not compare."""
        if recipe.criterion == self.first.criterion:
            return
        advice = ""
        if recipe.horizons_validated != self.first.horizons_validated:
            advice = ", or send recipe.validation_horizons, the same inner steps for all"
        raise refused(
            axis.path,
            "other_criterion",
            f"the scores of its trials would not compare: one is {self.first.criterion}, another {recipe.criterion}. "
            f"Leave out what changes that{advice}",
        )

    def _in_its_numbers(self, axis: Axis) -> Axis:
        """A range of integers, where the field takes no others."""
        if isinstance(axis, Choices) or not (isinstance(axis.low, int) and isinstance(axis.high, int)):
            return axis
        found = self.recipe([each.shown[0] + 0.5 if each is axis else each.shown[0] for each in self.axes])
        refusals = [] if isinstance(found, Recipe) else found
        only = any(each.code in _NO_INTEGER and each.pointer == _pointer(axis) for each in refusals)
        return axis.model_copy(update={"integer": only})


def _pointer(axis: Axis) -> str:
    return "".join(f"/{part}" for part in axis.path)
