"""The job that measures an optimizer against tuned baselines."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from models.rule_spec import USUAL, AnyRule, Assigned, RulePattern, assigned, without_default
from models.spec.family import FamilySpec
from models.spec.jobs import Job, in_one_process, require_fitting
from models.spec.plans import EvaluationPlan
from models.spec.recipe import Recipe
from models.spec.resources import Resources

EVALUATION_SEED = 0
"""The seed of an evaluation that names none: all of a family share their held-out tasks, and the runs of baselines."""


class EvaluateSpec(Job):
    """A resolved `evaluate` job: one optimizer of the registry on held-out tasks of a family."""

    kind: Literal["evaluate"] = "evaluate"
    optimizer: str = Field(description="The optimizer's id.")
    rule: AnyRule = Field(
        USUAL, description="The optimizer's rule, as it was trained.", json_schema_extra=without_default
    )
    rules: dict[RulePattern, AnyRule] = Field(
        default_factory=dict, max_length=16, description="Its other rules, by pattern, where it has several."
    )
    family: FamilySpec
    seed: int = Field(ge=0, lt=2**63)
    evaluation: EvaluationPlan
    training: Recipe | None = Field(
        None,
        description="The recipe of the optimizer's training, whose budget the family tier has; null without that tier.",
    )
    resources: Resources

    @property
    def total(self) -> int:
        return 0

    @property
    def measures(self) -> str:
        return self.optimizer

    @property
    def to_lower(self) -> list[str]:
        return ["evaluation.test_tasks", "evaluation.tuning_tasks", "evaluation.horizon"]

    def follow_up(self, optimizer: str) -> None:
        """None: it makes no optimizer."""

    def assigned(self) -> Assigned:
        return assigned(self.rule, self.rules, self.family.tasks.parts())

    @model_validator(mode="after")
    def _one_process_and_what_fits(self) -> EvaluateSpec:
        in_one_process("an evaluation", self.resources)
        require_fitting(self.evaluation, self.family.tasks, self.family.name)
        return self

    @model_validator(mode="after")
    def _a_family_tier_has_a_budget(self) -> EvaluateSpec:
        if self.evaluation.family_tier and self.training is None:
            raise ValueError(
                "evaluation.family_tier has the budget of the optimizer's training, and training is missing; send the "
                "recipe of the optimizer as training, or leave family_tier out"
            )
        return self
