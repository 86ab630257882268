"""An `evaluate` job: its request, and what that is resolved to."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from app.http.fields import Labels, Name, Request, Seed
from app.http.problems import FieldError, invalid_request
from app.jobs.installed import recipe_of, trained_on
from app.jobs.overrides import EvaluationPlanOverrides, ResourcesOverrides, TaskOverrides
from app.jobs.resolve import changed, known_family, known_optimizer, plan_of, refused_at, resources_of
from app.store.families import DeclaredFamilies
from app.store.registry import Registry
from models.rule_spec import assigned, uncovered, without_room
from models.spec import EVALUATION_SEED, BackendName, EvaluateSpec, FamilySpec, Recipe


class EvaluateRequest(Request):
    """Measure an optimizer of the registry against tuned baselines on held-out tasks."""

    kind: Literal["evaluate"]
    optimizer: Name = Field(description="An id, `<family>@<version>` or `<family>@<alias>`, such as `quadratic@best`.")
    family: Name | None = Field(
        None, description="Default: the family that the optimizer was trained on, with the tasks of its training."
    )
    tasks: TaskOverrides = Field(default_factory=dict)
    seed: Seed = Field(
        EVALUATION_SEED,
        description="Which held-out tasks are drawn. Evaluations of one family with one seed share their baselines, "
        "which are tuned once and stored.",
    )
    evaluation: EvaluationPlanOverrides = Field(default_factory=EvaluationPlanOverrides)
    resources: ResourcesOverrides = Field(default_factory=ResourcesOverrides)
    metadata: Labels = Field(default_factory=dict, description="Your own labels; GET /jobs filters by them.")


def resolved(
    request: EvaluateRequest,
    registry: Registry,
    declared: DeclaredFamilies,
    backend: BackendName,
) -> EvaluateSpec:
    """backend: what a job runs on that names none. Raises Problem `unknown_optimizer`, `unknown_family`,
    `not_installed` or `invalid_request`."""
    optimizer = known_optimizer(request.optimizer, registry)
    # Only parts of it are read: its family may be a plug-in's that has gone.
    training = registry.made_with(optimizer)
    if request.family is None:
        family, tasks = trained_on(optimizer.id, training["family"], declared)
    else:
        family = known_family(request.family, declared)
        tasks = family.tasks
    family = changed(family, tasks, request.tasks)
    trained = recipe_of(optimizer.id, training["recipe"])
    horizon = trained.horizon if request.family is None else family.evaluation.horizon
    if (wrong := _part_without_a_rule(optimizer.id, trained, training["family"], family, declared)) is not None:
        place = "/tasks" if request.family is None else "/family"
        raise invalid_request([FieldError(location="body", pointer=place, code="part_without_rule", message=wrong)])
    if (wrong := without_room(assigned(trained.rule, trained.rules, family.tasks.parts()))) is not None:
        wrong = f"{family.name} is too large for {optimizer.id}: {wrong}"
        place = "/tasks" if request.family is None else "/family"
        raise invalid_request([FieldError(location="body", pointer=place, code="no_room", message=wrong)])
    plan = plan_of(family, request.evaluation, trained, horizon)
    with refused_at("resources", "processes"):
        return EvaluateSpec(
            optimizer=optimizer.id,
            rule=trained.rule,
            rules=trained.rules,
            family=family,
            seed=request.seed,
            evaluation=plan,
            training=trained if plan.family_tier else None,
            resources=resources_of(request.resources, backend),
        )


def _part_without_a_rule(
    optimizer: str, trained: Recipe, source: dict[str, Any], family: FamilySpec, declared: DeclaredFamilies
) -> str | None:
    """What is wrong, in words, where no rule of the optimizer moves a part of the family's tasks.

    source: the family that it was trained on. Raises Problem `not_installed` where the answer depends on the parts of
    its tasks, and its plug-in has gone.
    """
    if not trained.rules or uncovered(trained.rules, family.tasks.parts()) is None:
        return None  # each pattern was trained, for a job with one that has no part is refused
    _, tasks = trained_on(optimizer, source, declared)
    patterns = assigned(trained.rule, trained.rules, tasks.parts())  # the rule of the rest may have had none
    part = uncovered(patterns, family.tasks.parts())
    if part is None:
        return None
    return (
        f"{optimizer} has no rule for {part.name} ({part.role}) of {family.name}; its rules are for "
        f"{', '.join(patterns)}. Send a family, or tasks, all parts of which these match, or an optimizer that was "
        f"trained with a rule for '*'"
    )
