"""`./run reproduce --estimate`: how long a budget takes here, by the model of what jobs cost (`models.price`).

Nothing is trained to the end: a few steps of everything are timed. Processor time counts, so that other processes
disturb it little.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from app.jobs.kinds import training as training_kind
from benchmarks.reproduce.budgets import Budget
from benchmarks.reproduce.experiments import Experiment, Panel, Training
from models import price
from models.calibration import calibrated
from models.families import FAMILIES
from models.price import Calibration
from models.spec import EvaluationPlan, MetaTrainSpec, overridden
from models.task_spec import TaskSpec


@dataclass(frozen=True)
class Estimate:
    """Core-seconds of all jobs that train, and of all that measure."""

    training: float
    measuring: float

    def minutes(self, workers: int) -> float:
        return (self.training + self.measuring) / workers / 60


def estimate(experiment: Experiment, budget: Budget, seeds: int, data: Path) -> Estimate:
    """Time a piece of everything that the experiment would run, on one thread."""
    torch.set_num_threads(1)
    specs = [resolved(budget, experiment, each) for each in experiment.trainings]
    training = sum(
        price.training_seconds(spec, price.calibrated_training(spec, _timed(spec, data))).total for spec in specs
    )
    measuring = sum(_measuring(budget, experiment, panel, specs, seeds, data) for panel in experiment.panels)
    return Estimate(seeds * training, measuring)


def resolved(budget: Budget, experiment: Experiment, training: Training) -> MetaTrainSpec:
    body = {"kind": "meta_train", **budget.training(experiment, training, 0)}
    return training_kind.resolved(training_kind.MetaTrainRequest.model_validate(body), None, "auto")


def _measuring(
    budget: Budget, experiment: Experiment, panel: Panel, specs: list[MetaTrainSpec], seeds: int, data: Path
) -> float:
    """Evaluations share their baselines: the first one tunes and runs them, the others read them."""
    body = budget.evaluation_of(experiment, panel, "opt_x")
    tasks: TaskSpec = overridden(FAMILIES[panel.family].tasks, body.get("tasks", {}))
    plan: EvaluationPlan = overridden(FAMILIES[panel.family].evaluation, body["evaluation"])
    total, stored = 0.0, False
    for spec in specs:
        own = spec.on(tasks).model_copy(update={"evaluation": plan, "evaluate": True})
        follow_up = own.follow_up("opt_x")
        assert follow_up is not None
        pace = price.calibrated_measuring(plan, own.recipe.knows_steps, _timed(own, data, training=False))
        again = price.measuring_seconds(follow_up, pace, (*plan.baselines, *plan.untuned)).total
        total += seeds * again
        if not stored:
            total += price.measuring_seconds(follow_up, pace).total - again
            stored = True
    return total


def _timed(spec: MetaTrainSpec, data: Path, *, training: bool = True) -> Calibration:
    work = calibrated(spec, data_dir=data, training=training, clock=time.process_time)
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: Calibration = end.value
            return found
