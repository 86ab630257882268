"""From a request to a family of the workspace's own."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from pydantic import AfterValidator, Field, Strict

from app.http.fields import Request, storable
from app.http.problems import FieldError, Problem, invalid_request
from app.jobs.giving_way import fitting
from app.jobs.overrides import EvaluationPlanOverrides, RecipeOverrides, partial
from app.jobs.resolve import laid_over, refused_at
from app.store.datasets import Datasets
from app.store.errors import DatasetNotFound
from app.store.families import FAMILY_NAME_PATTERN
from models.baselines import usual_tuned, usual_untuned
from models.errors import DatasetRefused
from models.families import FAMILIES, KINDS, no_such_kind, usual_recipe
from models.spec import EvaluationPlan, FamilySpec, Recipe
from models.table_spec import table_fields
from models.task_spec import TaskSpec

_Words = Annotated[str, Strict(), AfterValidator(storable)]


class FamilyRequest(Request):
    """Declare a family: a distribution of tasks of a kind that the server has, under a name of your own."""

    name: Annotated[str, Strict()] = Field(
        pattern=FAMILY_NAME_PATTERN, description="What jobs call it. It is yours for good: a family never changes."
    )
    title: _Words = Field("", max_length=200, description="Default: the name.")
    description: _Words = Field("", max_length=2000)
    tasks: dict[str, Any] = Field(
        description="What is drawn: an object with `kind`. Its JSON schema is `schemas.tasks` of GET /families/{name} "
        "of a family of that kind."
    )
    recipe: RecipeOverrides = Field(
        default_factory=RecipeOverrides, description="What differs from the recipe of its kind's first family."
    )
    evaluation: EvaluationPlanOverrides = Field(default_factory=EvaluationPlanOverrides)


def declared_family(request: FamilyRequest, datasets: Datasets | None = None) -> FamilySpec:
    """The family. datasets: those of the workspace; None where there are none. Raises Problem `invalid_request`, and
    `data_set_missing` for a table that nobody brought."""
    if request.name in FAMILIES:
        message = f"{request.name!r} is a family of the server's own; choose another name"
        raise invalid_request([FieldError(location="body", pointer="/name", code="taken", message=message)])
    tasks = _tasks(request.tasks, datasets)
    usual = usual_recipe(tasks.kind)
    given = request.recipe.model_dump(exclude_unset=True)
    if given.get("mixture"):
        message = "a family's recipe has no mixture; send it with the job, as recipe.mixture"
        raise invalid_request([FieldError(location="body", pointer="/recipe/mixture", code="mixture", message=message)])
    recipe = laid_over(usual, fitting(usual, given, 1), "recipe")
    assert isinstance(recipe, Recipe)
    usual_plan = EvaluationPlan(
        horizon=recipe.horizon,
        baselines=usual_tuned(tasks),
        untuned=usual_untuned(tasks),
        search="halving" if tasks.noisy else "full",
    )
    plan = laid_over(usual_plan, request.evaluation, "evaluation")
    assert isinstance(plan, EvaluationPlan)
    with refused_at():
        return FamilySpec(
            name=request.name,
            title=request.title or request.name,
            description=request.description,
            tasks=tasks,
            recipe=recipe,
            evaluation=plan,
        )


def _tasks(given: dict[str, Any], datasets: Datasets | None) -> TaskSpec:
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise invalid_request(
            [FieldError(location="body", pointer="/tasks/kind", code="unknown_kind", message=no_such_kind(kind))]
        )
    spec = KINDS[kind].spec
    fields = table_fields(spec).items()
    given = given | {name: _table(name, given[name], datasets, own) for name, own in fields if name in given}
    with refused_at("tasks", model=spec):
        partial(spec).model_validate(given)
        return spec.model_validate(given)


def _table(field: str, name: object, datasets: Datasets | None, own: tuple[str, ...]) -> object:
    """What a spec holds of the data set of that name. own: names of the server's data sets that the field takes"""
    if isinstance(name, str) and name in own:
        return name
    pointer = f"/tasks/{field}"
    if not isinstance(name, str):
        message = "send the name of one of your data sets, which GET /datasets lists"
        raise invalid_request([FieldError(location="body", pointer=pointer, code="dataset_name", message=message)])
    try:
        if datasets is None:
            raise DatasetNotFound(name)
        return datasets.table(name).model_dump()
    except DatasetRefused as error:
        wrong = FieldError(location="body", pointer=pointer, code="dataset_unusable", message=str(error))
        raise invalid_request([wrong]) from error
    except DatasetNotFound as error:
        there = [*own, *(datasets.names() if datasets is not None else [])]
        close = difflib.get_close_matches(name, there, n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        message = (
            f"There is no data set {name!r} in this workspace.{meant} Bring it with "
            f"`gradsmith data add FILE --name {name}` or POST /datasets."
        )
        wrong = FieldError(location="body", pointer=pointer, code="data_set_missing", message=message)
        raise Problem("data_set_missing", message, errors=[wrong]) from error
