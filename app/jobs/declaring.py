"""From a request to a family of the workspace's own."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, Strict

from app.http.fields import Request, storable
from app.http.problems import FieldError, invalid_request
from app.jobs.declared_tasks import Workspace, declared_tasks
from app.jobs.giving_way import fitting
from app.jobs.overrides import EvaluationPlanOverrides, RecipeOverrides
from app.jobs.resolve import laid_over, refused_at
from app.store.datasets import Datasets
from app.store.families import FAMILY_NAME_PATTERN, DeclaredFamilies
from models.baselines import usual_tuned, usual_untuned
from models.families import FAMILIES, usual_recipe
from models.spec import EvaluationPlan, FamilySpec, Recipe

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


def declared_family(
    request: FamilyRequest, datasets: Datasets | None = None, declared: DeclaredFamilies | None = None
) -> FamilySpec:
    """The family. datasets, declared: those of the workspace; None where there are none. Raises Problem
    `invalid_request`, `data_set_missing` for a table that nobody brought, and `unknown_family` for a part of a mixture
    that nobody declared."""
    if request.name in FAMILIES:
        message = f"{request.name!r} is a family of the server's own; choose another name"
        raise invalid_request([FieldError(location="body", pointer="/name", code="taken", message=message)])
    tasks = declared_tasks(request.tasks, Workspace(datasets, declared))
    usual = usual_recipe(tasks)
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
