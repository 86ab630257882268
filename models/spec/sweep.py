"""The job that searches for the best recipe: its children are trainings, which any worker takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from models.rule_spec import Assigned
from models.spec.family import FamilySpec
from models.spec.jobs import Job
from models.spec.plans import EvaluationPlan
from models.spec.recipe import Component, Recipe
from models.spec.resources import Resources
from models.task_spec import Spec

MOST_TRIALS = 512
MOST_AXES = 16
Sampler = Literal["grid", "random", "tpe"]


class _Axis(Spec):
    path: tuple[str, ...] = Field(min_length=1, description="Where the value is in the body of a training.")

    @property
    def name(self) -> str:
        """`recipe.meta_steps`: what values, tables and pictures are labelled with."""
        return ".".join(self.path)

    @property
    def is_logarithmic(self) -> bool:
        return False


class Choices(_Axis):
    """A field that takes one of several values."""

    kind: Literal["choices"] = "choices"
    values: tuple[Any, ...] = Field(min_length=1)

    @property
    def shown(self) -> tuple[Any, ...]:
        """The values that a check looks at."""
        return self.values


class Range(_Axis):
    """A field that takes numbers between two, both of which may occur."""

    kind: Literal["range"] = "range"
    low: int | float
    high: int | float
    log: bool = Field(False, description="Whether its logarithm is drawn uniformly.")
    integer: bool = False

    @property
    def shown(self) -> tuple[Any, ...]:
        """Its ends: the values that a check looks at."""
        return (self.low, self.high)

    @property
    def is_logarithmic(self) -> bool:
        return self.log


Axis = Annotated[Choices | Range, Field(discriminator="kind")]


class Halving(Spec):
    """Successive halving (Jamieson and Talwalkar, 2016): all trials run for a few meta-steps, the best of them anew for
    `reduction` times as many, and so on until the last rung, which has all of the recipe's."""

    rungs: int = Field(3, ge=2, le=8, description="How many times trials run, the first included.")
    reduction: int = Field(3, ge=2, le=16, description="One of so many trials goes on to the next rung.")


Rung: TypeAlias = tuple[int, int | None]
"""How many trials a rung has at most, and their meta-steps; None: those of the recipe."""


class SweepSpec(Job):
    """A resolved `sweep` job. No worker runs it: the service makes its children, and ends it when they have ended."""

    kind: Literal["sweep"] = "sweep"
    family: FamilySpec
    seed: int = Field(ge=0, lt=2**63, description="Of the search; of every child too, unless seeds are swept.")
    sampler: Sampler
    trials: int = Field(ge=1, le=MOST_TRIALS)
    parallel: int = Field(ge=1, le=64, description="Most children that are queued or running at a time.")
    halving: Halving | None
    space: tuple[Axis, ...] = Field(min_length=1, max_length=MOST_AXES)
    given: dict[str, Any] = Field(description="What all children change in the family's recipe.")
    recipe: Recipe = Field(description="The recipe of the first child, with the meta-steps of the last rung.")
    evaluate: bool
    evaluation: EvaluationPlan
    resources: Resources

    @property
    def needs_worker(self) -> bool:
        return False

    @property
    def rungs(self) -> tuple[Rung, ...]:
        if self.halving is None:
            return ((self.trials, None),)
        last, reduction = self.halving.rungs - 1, self.halving.reduction
        steps = self.recipe.meta_steps
        return tuple((self.trials // reduction**rung, steps // reduction ** (last - rung)) for rung in range(last + 1))

    @property
    def total(self) -> int:
        return sum(size for size, _ in self.rungs)

    @property
    def measures(self) -> None:
        return None

    @property
    def mixture(self) -> tuple[Component, ...]:
        return self.recipe.mixture

    @property
    def to_lower(self) -> list[str]:
        fields = ["recipe.tasks", "recipe.validation_tasks", "recipe.unroll_steps"]
        return fields + (["evaluation.test_tasks", "evaluation.horizon"] if self.evaluate else [])

    def follow_up(self, optimizer: str) -> None:
        """None: the evaluation that follows is that of its best child."""

    def assigned(self) -> Assigned:
        return {}

    @property
    def grid(self) -> Iterator[tuple[Any, ...]]:
        """Every combination of the values that a check looks at, the last axis fastest."""
        return itertools.product(*(axis.shown for axis in self.space))

    @model_validator(mode="after")
    def _every_rung_has_a_trial_and_a_meta_step(self) -> SweepSpec:
        if self.halving is not None and self.rungs[-1][0] < 1:
            least = self.halving.reduction ** (self.halving.rungs - 1)
            raise ValueError(
                f"{self.trials} trials leave none for the last of {self.halving.rungs} rungs, to which one in {least} "
                f"comes; send {least} trials at least, or fewer halving.rungs"
            )
        if self.halving is not None and not self.rungs[0][1]:
            raise ValueError(
                f"recipe.meta_steps {self.recipe.meta_steps} leaves none for the first of {self.halving.rungs} rungs; "
                f"send more meta_steps, or fewer halving.rungs"
            )
        return self
