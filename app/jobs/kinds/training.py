"""A `meta_train` job: its request, and what that is resolved to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, Strict

from app.http.fields import Labels, Name, Request, Seed
from app.http.problems import FieldError, invalid_request
from app.jobs.giving_way import fitting
from app.jobs.overrides import EvaluationPlanOverrides, RecipeOverrides, ResourcesOverrides, TaskOverrides
from app.jobs.resolve import changed, known_family, laid_over, plan_of, refused_at, resources_of, seed_of
from app.store.families import DeclaredFamilies
from models.spec import REST, BackendName, MetaTrainSpec, Recipe


class MetaTrainRequest(Request):
    """Train a rule on a family. What is left out comes from the family's recipe."""

    kind: Literal["meta_train"]
    family: Name = Field(description="A name of GET /families.")
    tasks: TaskOverrides = Field(default_factory=dict)
    seed: Seed | None = Field(None, description="Default: a fresh random one, recorded in the job.")
    recipe: RecipeOverrides = Field(default_factory=RecipeOverrides)
    evaluate: Annotated[bool, Strict()] = Field(
        True, description="Measure the result against tuned baselines afterwards, by an `evaluate` job of its own."
    )
    evaluation: EvaluationPlanOverrides = Field(default_factory=EvaluationPlanOverrides)
    resources: ResourcesOverrides = Field(default_factory=ResourcesOverrides)
    metadata: Labels = Field(default_factory=dict, description="Your own labels; GET /jobs filters by them.")


def families_of(request: MetaTrainRequest) -> set[str]:
    """The families that it names."""
    mixture = request.recipe.model_dump(exclude_unset=True).get("mixture") or []
    return {request.family, *(each["family"] for each in mixture)}


def resolved(request: MetaTrainRequest, declared: DeclaredFamilies | None, backend: BackendName) -> MetaTrainSpec:
    """backend: what a job runs on that names none. Raises Problem `unknown_family` or `invalid_request`."""
    family = known_family(request.family, declared)
    family = changed(family, family.tasks, request.tasks)
    given = request.recipe.model_dump(exclude_unset=True)
    if "rule" in given and REST in (given.get("rules") or {}):
        message = f"recipe.rule and the rule for {REST!r} are the same thing; send one of the two"
        raise invalid_request(
            [FieldError(location="body", pointer=f"/recipe/rules/{REST}", code="two_rules", message=message)]
        )
    if given.get("mixture"):
        given["mixture"] = mixture_of(given["mixture"], declared)
    processes = request.resources.model_dump(exclude_unset=True).get("processes", 1)
    recipe = laid_over(family.recipe, fitting(family.recipe, given, processes), "recipe")
    assert isinstance(recipe, Recipe)
    with refused_at("resources", "processes"):
        return MetaTrainSpec(
            family=family,
            seed=seed_of(request.seed),
            recipe=recipe,
            evaluate=request.evaluate,
            # what was trained for a horizon is measured over it, unless the request says otherwise
            evaluation=plan_of(family, request.evaluation, recipe, recipe.horizon),
            resources=resources_of(request.resources, backend),
        )


def mixture_of(given: Sequence[dict[str, Any]], declared: DeclaredFamilies | None) -> list[dict[str, Any]]:
    """`recipe.mixture` with the tasks of the families that it names. Raises as `resolved` does."""
    return [_component(place, each, declared) for place, each in enumerate(given)]


def _component(place: int, given: dict[str, Any], declared: DeclaredFamilies | None) -> dict[str, Any]:
    """One entry of `recipe.mixture`, with the tasks of the family that it names. Raises as `resolved` does."""
    at = ("recipe", "mixture", str(place))
    family = known_family(given["family"], declared, "/" + "/".join((*at, "family")))
    tasks = changed(family, family.tasks, given.get("tasks", {}), (*at, "tasks")).tasks
    return given | {"tasks": tasks.model_dump()}
