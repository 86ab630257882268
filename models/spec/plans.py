"""How an optimizer or a family is measured against tuned baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from models.baselines import DEFAULT_TUNED, DEFAULT_UNTUNED, SCHEDULES, TUNED, UNTUNED
from models.task_spec import LossesOn, Spec

if TYPE_CHECKING:  # a Literal that is made from the register says nothing to a type checker
    BaselineName: TypeAlias = str
    UntunedName: TypeAlias = str
    ScheduleName: TypeAlias = str
else:
    BaselineName = Literal[tuple(TUNED)]
    UntunedName = Literal[tuple(UNTUNED)]
    ScheduleName = Literal[tuple(SCHEDULES)]


Search = Literal["full", "halving"]
_SEARCH = (
    "How learning rates and schedules are searched. full: every candidate runs on all tuning tasks. halving: "
    "all run on a quarter of them, the best third on half, the best of those on all (successive halving), for about "
    "0.4 of the cost."
)


class EvaluationPlan(Spec):
    """How an optimizer is measured. Every baseline gets the same tuning budget, on validation tasks."""

    horizon: int = Field(100, ge=1, le=10_000)
    test_tasks: int = Field(512, ge=2, le=65_536, description="Held-out tasks, the same for every optimizer.")
    tuning_tasks: int = Field(128, ge=1, le=65_536, description="Validation tasks that learning rates are tuned on.")
    baselines: tuple[BaselineName, ...] = Field(
        DEFAULT_TUNED,
        min_length=1,
        description="The tuned tier, which the verdict is against. A family adds what suits its tasks: muon and soap "
        "where they have matrices of weights, lbfgs where no step draws data of its own.",
    )
    schedules: tuple[ScheduleName, ...] = Field(
        tuple(SCHEDULES),
        min_length=1,
        description="Schedules of the learning rate that each baseline is tuned over; the first gets the most runs.",
    )
    search: Search = Field("full", description=_SEARCH)
    untuned: tuple[UntunedName, ...] = Field(
        DEFAULT_UNTUNED,
        description="The untuned tier: optimizers that run once at their published defaults, shown beside the verdict. "
        "A family whose losses have absolute values adds fista.",
    )
    family_tier: bool = Field(
        False,
        description="Whether to measure what the family gives without a network, with the budget of the optimizer's "
        "training: a learned schedule of the learning rate and momentum, and a learned starting point. It takes about "
        "as many meta-steps again as the training had.",
    )
    on: LossesOn = Field(
        "training",
        description="Which losses baselines are tuned for and all are judged by: those of the minibatches that the "
        "gradients come from, or, at ten points of each curve, those of data that no optimizer saw: validation images "
        "for tuning, test images for the verdict. Default: what the optimizer was trained for (`recipe.on`).",
    )
    bootstrap_samples: int = Field(2000, ge=100, le=100_000)


class PreviewPlan(Spec):
    """How baselines are tuned to see a family, on its validation tasks. It is small: a preview takes seconds."""

    horizon: int = Field(100, ge=1, le=10_000)
    tuning_tasks: int = Field(32, ge=1, le=65_536, description="Validation tasks, the same for every baseline.")
    baselines: tuple[BaselineName, ...] = Field(("adam",), min_length=1)
    schedules: tuple[ScheduleName, ...] = Field(
        ("constant",), min_length=1, description="Schedules of the learning rate that each baseline is tuned over."
    )
    search: Search = Field("full", description=_SEARCH)
    on: LossesOn = Field(
        "training",
        description="Which losses baselines are tuned for: those of the minibatches that the gradients come from, or, "
        "at ten points of each curve, those of validation images.",
    )
    bootstrap_samples: int = Field(2000, ge=100, le=100_000)
