"""What every kind of job says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from gradsmith.rules.shapes import matrix
from models.baselines import TUNED, UNTUNED
from models.rule_spec import Assigned
from models.spec.plans import EvaluationPlan, PreviewPlan
from models.spec.recipe import Component, MetaGradientMode, Products
from models.spec.resources import Resources
from models.task_spec import Spec, TaskSpec

JobKind = Literal["meta_train", "evaluate", "preview", "sweep"]


class Job(Spec, ABC):
    """What every kind of job says of itself."""

    @property
    @abstractmethod
    def total(self) -> int:
        """How many steps `progress` counts; 0 where only the worker can tell."""

    @property
    def needs_worker(self) -> bool:
        """Whether a worker runs it. A job that none runs is running from its beginning."""
        return True

    @property
    @abstractmethod
    def measures(self) -> str | None:
        """The id of the optimizer that it measures; None where it makes one or has none."""

    @property
    @abstractmethod
    def to_lower(self) -> list[str]:
        """The fields of a request that its memory depends on most."""

    @property
    def mixture(self) -> tuple[Component, ...]:
        """The families that it is about beside its own."""
        return ()

    @property
    def meta_gradient(self) -> MetaGradientMode:
        """The mode of the meta-gradients that its backend has to compute."""
        return "detached"

    @property
    def products(self) -> Products:
        """What the products of its rules' kernel multiply."""
        return "float32"

    @property
    def learns_apart(self) -> bool:
        """Whether all coordinates go through a rule's network and its weight gradients look at chosen ones."""
        return False

    @abstractmethod
    def follow_up(self, optimizer: str) -> Job | None:
        """The job that is to run when this one has made `optimizer` (its id); None where none is asked for."""

    @abstractmethod
    def assigned(self) -> Assigned:
        """Which rule moves which parts of a task; empty where the job has no rule."""


def in_one_process(what: str, resources: Resources) -> None:
    """Raise ValueError where more processes than one are asked for. what: the job, as a message calls it"""
    if resources.processes > 1:
        raise ValueError(
            f"{what} runs in one process and this asks for {resources.processes}; "
            f"leave processes out (threads may be more)"
        )


def require_fitting(plan: EvaluationPlan | PreviewPlan, tasks: TaskSpec, family: str) -> None:
    """Raise ValueError where the plan cannot be carried out on the tasks."""
    if (found := unfitting(plan, tasks, family)) is not None:
        raise ValueError(found[1])


def unfitting(plan: EvaluationPlan | PreviewPlan, tasks: TaskSpec, family: str) -> tuple[str, str] | None:
    """The field of a plan that does not fit the tasks, and why; None where all do."""
    if plan.on == "held_out" and not tasks.parts_data:
        return "on", (
            f"evaluation.on held_out needs tasks with data, some of which are held out, and {family} has none; send "
            f"evaluation.on training"
        )
    if getattr(plan, "family_tier", False) and len(tasks.weighted_points) > 1:
        return "family_tier", (
            f"evaluation.family_tier learns one starting point for all tasks, and tasks of {family} differ in size or "
            f"kind; leave family_tier out"
        )
    matrices = [name for name in plan.baselines if TUNED[name].matrices]
    if matrices and not any(matrix(part.shape) for part in tasks.parts()):
        return "baselines", (
            f"{' and '.join(matrices)} work on matrices, and no part of a task of {family} is one; leave them out of "
            f"evaluation.baselines"
        )
    strangers = [name for name in getattr(plan, "untuned", ()) if not UNTUNED[name].fits(tasks)]
    if strangers:
        return "untuned", (
            f"{' and '.join(strangers)} needs a loss of a smooth part and absolute values, such as that of the kind "
            f"lasso or a regression of all rows with l1, and {family} has another; leave it out of evaluation.untuned"
        )
    return None
