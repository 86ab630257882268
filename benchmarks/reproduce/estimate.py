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
    training = 0.0
    for spec in specs:
        found = _timed(spec, data, training=True, baselines=False)
        training += price.training_seconds(spec, price.calibrated_training(spec, found)).total
    measuring = sum(_measuring(budget, experiment, panel, specs, seeds, data) for panel in experiment.panels)
    return Estimate(seeds * training, measuring)


def resolved(budget: Budget, experiment: Experiment, training: Training) -> MetaTrainSpec:
    body = {"kind": "meta_train", **budget.training(experiment, training, 0)}
    return training_kind.resolved(training_kind.MetaTrainRequest.model_validate(body), None, "auto")


def _measuring(
    budget: Budget, experiment: Experiment, panel: Panel, specs: list[MetaTrainSpec], seeds: int, data: Path
) -> float:
    """Evaluations share their baselines: the first one tunes and runs them, the others read them. They are timed
    once."""
    body = budget.evaluation_of(experiment, panel, "opt_x")
    tasks: TaskSpec = overridden(FAMILIES[panel.family].tasks, body.get("tasks", {}))
    plan: EvaluationPlan = overridden(FAMILIES[panel.family].evaluation, body["evaluation"])
    total, timed = 0.0, None
    for spec in specs:
        own = spec.on(tasks).model_copy(update={"evaluation": plan, "evaluate": True})
        follow_up = own.follow_up("opt_x")
        assert follow_up is not None
        found = _timed(own, data, training=False, baselines=timed is None)
        baselines = found.baselines if timed is None else timed
        found = found.model_copy(update={"baselines": baselines})
        pace = price.calibrated_measuring(plan, own.recipe.knows_steps, found)
        again = price.measuring_seconds(follow_up, pace, (*plan.baselines, *plan.untuned)).total
        total += seeds * again
        if timed is None:
            total += price.measuring_seconds(follow_up, pace).total - again
            timed = baselines
    return total


def _timed(spec: MetaTrainSpec, data: Path, *, training: bool, baselines: bool) -> Calibration:
    """training, baselines: whether these are timed too, beside the rule's runs"""
    if not baselines:
        none = spec.evaluation.model_copy(update={"baselines": (), "untuned": ()})
        spec = spec.model_copy(update={"evaluation": none})
    work = calibrated(spec, data_dir=data, training=training, clock=time.process_time)
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: Calibration = end.value
            return found
