"""A `preview` job: its request, and what that is resolved to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from app.http.fields import Labels, Name, Request, Seed
from app.jobs.kinds import training
from app.jobs.kinds.training import MetaTrainRequest
from app.jobs.overrides import (
    EvaluationPlanOverrides,
    PreviewPlanOverrides,
    RecipeOverrides,
    ResourcesOverrides,
    TaskOverrides,
)
from app.jobs.resolve import changed, known_family, laid_over, refused_at, require_fitting, resources_of
from app.store.families import DeclaredFamilies
from models.spec import EVALUATION_SEED, BackendName, PreviewPlan, PreviewSpec


class PreviewRequest(Request):
    """See how tuned baselines do on a family, in seconds, before training anything."""

    kind: Literal["preview"]
    family: Name = Field(description="A name of GET /families.")
    tasks: TaskOverrides = Field(default_factory=dict)
    seed: Seed = Field(
        EVALUATION_SEED,
        description="Which tasks are drawn. Runs of baselines are stored, and those of one seed are shared with "
        "evaluations that tune on the same tasks.",
    )
    evaluation: PreviewPlanOverrides = Field(default_factory=PreviewPlanOverrides)
    calibrate: Annotated[bool, Strict()] = Field(
        False, description="Also time a few steps of a training and its evaluation, so that both have a price."
    )
    recipe: RecipeOverrides = Field(
        default_factory=RecipeOverrides, description="Of the training that is calibrated; changes the family's recipe."
    )
    priced: EvaluationPlanOverrides = Field(
        default_factory=EvaluationPlanOverrides, description="Of the evaluation behind the training that is calibrated."
    )
    resources: ResourcesOverrides = Field(default_factory=ResourcesOverrides)
    metadata: Labels = Field(default_factory=dict, description="Your own labels; GET /jobs filters by them.")


def training_of(request: PreviewRequest) -> MetaTrainRequest | None:
    """The training that is to be calibrated."""
    if not request.calibrate:
        return None
    return MetaTrainRequest(
        kind="meta_train",
        family=request.family,
        tasks=request.tasks,
        seed=request.seed,
        recipe=request.recipe,
        evaluation=request.priced,
        resources=request.resources,
    )


def resolved(request: PreviewRequest, declared: DeclaredFamilies | None, backend: BackendName) -> PreviewSpec:
    """backend: of the training that is calibrated; the preview itself has no rule. Raises Problem `unknown_family` or
    `invalid_request`."""
    family = known_family(request.family, declared)
    family = changed(family, family.tasks, request.tasks)
    plan = laid_over(PreviewPlan(horizon=family.recipe.horizon), request.evaluation, "evaluation")
    assert isinstance(plan, PreviewPlan)
    require_fitting(plan, family)
    asked = training_of(request)
    calibrated = None if asked is None else training.resolved(asked, declared, backend)
    with refused_at("resources"):
        return PreviewSpec(
            family=family,
            seed=request.seed,
            evaluation=plan,
            training=calibrated,
            resources=resources_of(request.resources, "auto"),
        )
