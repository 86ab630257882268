"""A `meta_train` job: its request, and what that is resolved to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from app.http.fields import Labels, Name, Request, Seed
from app.jobs.overrides import EvaluationPlanOverrides, RecipeOverrides, ResourcesOverrides, TaskOverrides
from app.jobs.resolve import changed, known_family, laid_over, plan_of, refused_at, resources_of, seed_of
from models.spec import BackendName, MetaTrainSpec, Recipe


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


def resolved(request: MetaTrainRequest, backend: BackendName) -> MetaTrainSpec:
    """backend: what a job runs on that names none. Raises Problem `unknown_family` or `invalid_request`."""
    family = known_family(request.family)
    family = changed(family, family.tasks, request.tasks)
    recipe = laid_over(family.recipe, request.recipe, "recipe")
    assert isinstance(recipe, Recipe)
    with refused_at("resources", "processes"):
        return MetaTrainSpec(
            family=family,
            seed=seed_of(request.seed),
            recipe=recipe,
            evaluate=request.evaluate,
            # what was trained for a horizon is measured over it, unless the request says otherwise
            evaluation=plan_of(family, request.evaluation, recipe.horizon),
            resources=resources_of(request.resources, backend),
        )


def to_lower(spec: MetaTrainSpec) -> list[str]:
    """The fields of a request that its memory depends on most."""
    fields = ["recipe.tasks", "recipe.validation_tasks", "recipe.unroll_steps"]
    fields += ["evaluation.test_tasks", "evaluation.horizon"] if spec.evaluate else []
    return fields + (["resources.processes"] if spec.resources.processes > 1 else [])
