"""A `preview` job: its request, and what that is resolved to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.http.fields import Labels, Name, Request, Seed
from app.jobs.overrides import PreviewPlanOverrides, ResourcesOverrides, TaskOverrides
from app.jobs.resolve import changed, known_family, laid_over, refused_at, require_fitting, resources_of
from app.store.families import DeclaredFamilies
from models.spec import EVALUATION_SEED, PreviewPlan, PreviewSpec


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
    resources: ResourcesOverrides = Field(default_factory=ResourcesOverrides)
    metadata: Labels = Field(default_factory=dict, description="Your own labels; GET /jobs filters by them.")


def resolved(request: PreviewRequest, declared: DeclaredFamilies | None) -> PreviewSpec:
    """The service's own backend is for rules, and this has none. Raises Problem `unknown_family` or
    `invalid_request`."""
    family = known_family(request.family, declared)
    family = changed(family, family.tasks, request.tasks)
    plan = laid_over(PreviewPlan(horizon=family.recipe.horizon), request.evaluation, "evaluation")
    assert isinstance(plan, PreviewPlan)
    require_fitting(plan, family)
    with refused_at("resources"):
        return PreviewSpec(
            family=family,
            seed=request.seed,
            evaluation=plan,
            resources=resources_of(request.resources, "auto"),
        )
