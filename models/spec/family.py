"""What a family is, and the namespaces that its tasks are drawn from."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field, model_validator

from models.baselines import usual_tuned, usual_untuned
from models.spec.plans import EvaluationPlan
from models.spec.recipe import Recipe
from models.task_spec import Spec, Tasks, TaskSpec


class Split(StrEnum):
    """The namespace that a task's seed is drawn from. Training and selection never see `test`."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class FamilySpec(Spec):
    """A family: its name, its distribution of tasks, and the recipe that is used where a job says nothing."""

    name: str
    title: str
    description: str
    tasks: Tasks
    recipe: Recipe
    evaluation: EvaluationPlan
    overrides: dict[str, Any] = Field(
        {}, description="The fields of `tasks` that a job changed, with its values; empty for the family's own tasks."
    )
    plugin: str | None = Field(
        None, description="The plug-in that brought it, with its version; null for Gradsmith's own families."
    )

    @model_validator(mode="after")
    def _usual_baselines(self) -> FamilySpec:
        """A plan that names no baselines has those that suit the tasks."""
        usual = {"baselines": usual_tuned(self.tasks), "untuned": usual_untuned(self.tasks)}
        if missing := {tier: names for tier, names in usual.items() if tier not in self.evaluation.model_fields_set}:
            object.__setattr__(self, "evaluation", self.evaluation.model_copy(update=missing))
        return self


def with_tasks(family: FamilySpec, tasks: TaskSpec) -> FamilySpec:
    """A family that no job has changed yet, with these tasks in place of its own, and a note of what they change."""
    own = family.tasks.model_dump(mode="json")
    changed = {name: value for name, value in tasks.model_dump(mode="json").items() if own.get(name) != value}
    plan = family.evaluation
    if plan.baselines == usual_tuned(family.tasks):
        plan = plan.model_copy(update={"baselines": usual_tuned(tasks)})
    if plan.untuned == usual_untuned(family.tasks):
        plan = plan.model_copy(update={"untuned": usual_untuned(tasks)})
    return family.model_copy(update={"tasks": tasks, "overrides": changed, "evaluation": plan})
