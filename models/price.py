"""What a job costs: predicted seconds, from a pace that was measured. No import of torch: the API asks it.

There is one model. A *pace* says how long a part of a job takes here: of an earlier job with the same settings, or from
a calibration (`models.calibration`), a few steps of everything that a training and its evaluation run. The prediction
counts how often each part comes. `app.store.prices` finds paces, `./run bench price` measures the prediction's error.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from models.baselines import TUNED
from models.looks import looks
from models.spec import EvaluateSpec, EvaluationPlan, MetaTrainSpec, PreviewPlan, PreviewSpec, Recipe
from models.task_spec import Spec
from models.tuning_budget import CRITERIA, batches_of

_PLANNED_RUNS, _PLANNED_LENGTH = 20, 0.7
"""A rule that plans its steps runs once more for each budget of time: so many runs at most, and their mean length."""
_TIMING_SECONDS, _TIMED_STEPS = 0.02, 19
"""What timing one optimizer's steps takes: so long where a step is short, and so many steps where it is not."""
_TIER_RUNS = 3
"""Runs of the size of the test that a family tier has beside its trainings: of the schedule, and of both once more."""
_ANATOMY_SECONDS = 0.3
"""What looking at updates takes, beside runs of a task with three optimizers."""


class RunCost(Spec):
    """Seconds of a run forward.

    step: of an inner step, however many tasks are side by side; task: of an inner step for each of them
    begins: of drawing a task and its starting point; chunk: how many tasks are side by side at most
    look: of measuring a task's held-out loss; 0 where it has none
    """

    step: float
    task: float
    begins: float
    chunk: int
    look: float = 0.0

    def run(self, tasks: int, steps: int, looked: int = 0) -> float:
        """Seconds of a run of so many tasks. looked: how often held-out losses are measured"""
        stepped = (steps + 1) * (-(-tasks // self.chunk) * self.step + tasks * self.task)
        return tasks * (self.begins + looked * self.look) + stepped


class FamilyCost(Spec):
    """One family of a training: its weight in the mixture, and what was timed.

    meta_step: seconds of a whole one, its share of a trajectory's beginning included
    learned: the rule's runs
    """

    weight: float
    meta_step: float
    learned: RunCost


class Calibration(Spec):
    """A few steps of all that a training and its evaluation run, timed.

    families: the training's own first, then those of its mixture
    begins: seconds until the first step; compares: of describing and comparing one optimizer of the evaluation
    meta_steps: how many were timed, of each family
    processes: that share the runs of an evaluation's baselines on this machine
    """

    families: tuple[FamilyCost, ...]
    baselines: dict[str, RunCost]
    begins: float
    compares: float
    meta_steps: int
    processes: int = 1


@dataclass(frozen=True)
class TrainingPace:
    """Seconds of a meta-step, of a validation, and of all that a training does besides."""

    meta_step: float
    validation: float
    besides: float
    source: str


@dataclass(frozen=True)
class MeasuringPace:
    """Seconds of the parts of a job that measures: the optimizer's own run, each baseline's tuning and test runs, and
    what it does besides."""

    learned: float
    tuning: Mapping[str, float]
    test: Mapping[str, float]
    besides: float
    source: str


@dataclass(frozen=True)
class Seconds:
    """Predicted seconds of a job, split by what they are for. rests_on: where each part's pace comes from, in words"""

    training: float = 0.0
    selection: float = 0.0
    tuning: float = 0.0
    evaluation: float = 0.0
    rests_on: tuple[str, ...] = field(default=())

    @property
    def total(self) -> float:
        return self.training + self.selection + self.tuning + self.evaluation

    @property
    def told(self) -> dict[str, Any]:
        """Plain JSON values, for records and answers."""
        parts = {name: getattr(self, name) for name in ("training", "selection", "tuning", "evaluation", "total")}
        return {"seconds": parts, "rests_on": list(self.rests_on)}

    def __add__(self, other: Seconds) -> Seconds:
        parts = ("training", "selection", "tuning", "evaluation")
        sums = {name: getattr(self, name) + getattr(other, name) for name in parts}
        return Seconds(**sums, rests_on=tuple(dict.fromkeys((*self.rests_on, *other.rests_on))))

    def times(self, factor: float) -> Seconds:
        """Those of so many such jobs."""
        parts = ("training", "selection", "tuning", "evaluation")
        return replace(self, **{name: factor * getattr(self, name) for name in parts})


def training_seconds(spec: MetaTrainSpec, pace: TrainingPace) -> Seconds:
    """All meta-steps: patience may end a run earlier."""
    recipe = spec.recipe
    return Seconds(
        training=pace.besides + recipe.meta_steps * pace.meta_step,
        selection=validations(recipe) * pace.validation,
        rests_on=(f"training: {pace.source}",),
    )


def measuring_seconds(spec: EvaluateSpec | PreviewSpec, pace: MeasuringPace, stored: Collection[str] = ()) -> Seconds:
    """stored: baselines whose runs an earlier job has left to be read"""
    computed = [name for name in spec.evaluation.baselines if name not in stored]
    untuned = spec.evaluation.untuned if isinstance(spec.evaluation, EvaluationPlan) else ()
    measured = {*spec.evaluation.baselines, *untuned}
    reading = f" ({len(measured & {*stored})} of {len(measured)} baselines are stored)" if stored else ""
    return Seconds(
        tuning=sum(pace.tuning[name] for name in computed),
        evaluation=pace.learned
        + pace.besides
        + sum(pace.test[name] for name in (*computed, *untuned) if name not in stored),
        rests_on=(f"evaluation: {pace.source}{reading}",),
    )


def validations(recipe: Recipe) -> int:
    """How many validations a run of all meta-steps has."""
    whole, rest = divmod(recipe.meta_steps, recipe.validation_interval)
    return whole + (rest > 0) + (recipe.starts if recipe.starts > 1 else 0)


def calibrated_training(spec: MetaTrainSpec, found: Calibration, where: str = "here") -> TrainingPace:
    """The pace of a training whose own tasks, rule and batch were calibrated."""
    recipe, total = spec.recipe, sum(each.weight for each in found.families)
    horizons = recipe.horizons_validated
    each_looks = [looks(horizon) if recipe.on == "held_out" else () for horizon in horizons]
    steps, looked = sum(horizons), sum(map(len, each_looks))
    if not recipe.knows_steps:  # one run has the shorter ones in it
        steps, looked = horizons[-1], len({look for of_one in each_looks for look in of_one})
    return TrainingPace(
        meta_step=sum(each.weight / total * each.meta_step for each in found.families),
        validation=sum(each.learned.run(recipe.validation_tasks, steps, looked) for each in found.families),
        besides=found.begins,
        source=_timed(found, where),
    )


def calibrated_measuring(
    plan: EvaluationPlan | PreviewPlan,
    knows_steps: bool,
    found: Calibration,
    where: str = "here",
    training: Recipe | None = None,
) -> MeasuringPace:
    """The pace of an evaluation, or of a preview, which has no optimizer and no test.

    training: the recipe whose budget a family tier has
    """
    source = _timed(found, where)
    horizon, costs = plan.horizon, found.baselines
    looked = len(looks(horizon)) if plan.on == "held_out" else 0
    tuning = {name: _tuning(name, costs[name], plan, looked) for name in plan.baselines}
    if isinstance(plan, PreviewPlan):
        drawn = {name: len(CRITERIA) * costs[name].run(plan.tuning_tasks, horizon, looked) for name in plan.baselines}
        return MeasuringPace(0.0, tuning, drawn, found.begins + len(drawn) * found.compares, source)
    runs = dict.fromkeys(plan.baselines, len(CRITERIA)) | dict.fromkeys(plan.untuned, 1)
    looked_at_end = looked + 1
    test = {name: count * costs[name].run(plan.test_tasks, horizon, looked_at_end) for name, count in runs.items()}
    learned = found.families[0].learned
    whole = learned.run(plan.test_tasks, horizon, looked_at_end)
    planned = _PLANNED_LENGTH * min(_PLANNED_RUNS, len(runs)) if knows_steps else 0.0
    targets = max(costs[name].run(plan.tuning_tasks, horizon, looked) for name in plan.baselines)
    tuning, test = (_shared(seconds, found.processes) for seconds in (tuning, test))
    timed = [max(_TIMING_SECONDS, _TIMED_STEPS * each.run(1, 0)) for each in (learned, *map(costs.__getitem__, runs))]
    measuring = len(runs) * found.compares + sum(timed) + _ANATOMY_SECONDS + 3 * learned.run(1, horizon)
    if plan.family_tier and training is not None:
        measuring += training.meta_steps * found.families[0].meta_step + _TIER_RUNS * whole
    return MeasuringPace(whole, tuning, test, found.begins + planned * whole + 2 * targets + measuring, source)


def _shared(seconds: Mapping[str, float], processes: int) -> dict[str, float]:
    """Seconds that pass where processes share the work, which ends no sooner than its longest piece."""
    passed = max(sum(seconds.values()) / processes, max(seconds.values(), default=0.0))
    return {name: each * passed / sum(seconds.values()) for name, each in seconds.items()}


def _tuning(name: str, cost: RunCost, plan: EvaluationPlan | PreviewPlan, looked: int) -> float:
    """Settings of a baseline that looks at whole tasks share a step; those of others share the gradient alone, and are
    counted as if they shared nothing."""
    together = TUNED[name].of_each
    return sum(
        cost.run(settings * tasks, plan.horizon, looked)
        if together
        else settings * cost.run(tasks, plan.horizon, looked)
        for settings, tasks in batches_of(plan.schedules, plan.search, plan.tuning_tasks)
    )


def _timed(found: Calibration, where: str) -> str:
    return f"a calibration of {found.meta_steps} meta-steps {where}"


def phases(learned: float, baselines: Mapping[Any, Mapping[str, float]], whole: float) -> dict[str, Any]:
    """Seconds of what a measuring job computed, for its record.

    learned: of the optimizer's run; baselines: of their runs, by phase and name; whole: all seconds of the job
    """
    tuning, test = dict(baselines["tuning"]), dict(baselines["test"])
    besides = whole - learned - sum(tuning.values()) - sum(test.values())
    return {"learned": learned, "tuning": tuning, "test": test, "besides": besides}
