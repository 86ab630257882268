"""`./run reproduce --estimate`: how long a budget takes here, from meta-steps and inner steps that are timed.

Nothing is trained to the end. Processor time counts, so that other processes disturb it little. Of an evaluation it
counts what halving runs, the test runs of each baseline for both criteria and each variant's own; what an evaluation
does besides (targets, equal time, held-out losses) is taken to be `BESIDES` of that.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from app.jobs.kinds import training as training_kind
from benchmarks.reproduce.budgets import Budget
from benchmarks.reproduce.experiments import Experiment, Panel, Training
from gradsmith.rules import weights as rule_weights
from models.backends import backend_for
from models.baselines import TUNED
from models.families import FAMILIES
from models.halving import KEPT, SHARES
from models.measured import CRITERIA
from models.meta_train import MetaStep, TrainingResult, meta_train
from models.rollout import Contender, Learned, Sample, run
from models.spec import EvaluationPlan, MetaTrainSpec, Split, overridden
from models.task_spec import TaskSpec
from models.tasks.catalogue import open_for_tuning
from models.tuning import Tuned, learning_rate, runs_of

BESIDES = 0.2
META_STEPS, INNER_STEPS = 5, 8


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
    training, rules = 0.0, []
    for each in experiment.trainings:
        spec = resolved(budget, experiment, each)
        recipe = spec.recipe
        validations = recipe.meta_steps // recipe.validation_interval + recipe.starts
        validated = validations * recipe.validation_tasks * max(recipe.horizons_validated)
        whole = sum(component.weight for component in spec.components)
        for component in spec.components:
            seconds, weights = _meta_step(spec.on(component.tasks), data)
            inner = inner_step(_learned(weights, component.tasks, recipe.horizon), component.tasks, data)
            drawn = recipe.meta_steps * component.weight / whole
            training += seeds * (drawn * seconds + validated * inner)
        rules.append(weights)
    measuring = sum(_measuring(budget, experiment, panel, rules, seeds, data) for panel in experiment.panels)
    return Estimate(training, measuring)


def resolved(budget: Budget, experiment: Experiment, training: Training) -> MetaTrainSpec:
    body = {"kind": "meta_train", **budget.training(experiment, training, 0)}
    return training_kind.resolved(training_kind.MetaTrainRequest.model_validate(body), None, "auto")


def tuning_runs(plan: EvaluationPlan) -> int:
    """Runs of one task in the tuning of one baseline, but for the growth of grids at their edges."""
    runs = runs_of(plan.schedules)
    if plan.search == "full":
        return runs * plan.tuning_tasks
    rungs = sorted({max(1, plan.tuning_tasks // share) for share in SHARES})
    total = runs * rungs[0]
    for before, tasks in pairwise(rungs):
        runs = -(-runs // KEPT) * len(CRITERIA)
        total += runs * (tasks - before)
    return total


def inner_step(contender: Contender, tasks: TaskSpec, data: Path) -> float:
    """Core-seconds of an inner step of one task, gradient and optimizer together."""
    steps = run(contender, open_for_tuning(tasks, data), Sample(Split.VALIDATION, 0, 0, 1), INNER_STEPS)
    return _mean_interval(steps)


def _measuring(
    budget: Budget, experiment: Experiment, panel: Panel, rules: list[bytes], seeds: int, data: Path
) -> float:
    body = budget.evaluation_of(experiment, panel, "opt_x")
    tasks: TaskSpec = overridden(FAMILIES[panel.family].tasks, body.get("tasks", {}))
    plan: EvaluationPlan = overridden(FAMILIES[panel.family].evaluation, body["evaluation"])
    total = 0.0
    for name in plan.baselines:
        tuned = Tuned(TUNED[name], learning_rate(TUNED[name].centre), plan.schedules[0], plan.horizon)
        runs = tuning_runs(plan) + len(CRITERIA) * plan.test_tasks
        total += runs * plan.horizon * inner_step(tuned, tasks, data)
    for weights in rules:
        inner = inner_step(_learned(weights, tasks, plan.horizon), tasks, data)
        total += seeds * plan.test_tasks * plan.horizon * inner
    return (1 + BESIDES) * total


def _meta_step(spec: MetaTrainSpec, data: Path) -> tuple[float, bytes]:
    """Core-seconds of a meta-step, and the weights after a few of them."""
    few = {"meta_steps": META_STEPS, "starts": 1, "pool": 1, "validation_interval": META_STEPS, "validation_tasks": 1}
    short = spec.model_copy(update={"recipe": overridden(spec.recipe, few)})
    times, weights = [], b""
    for event in meta_train(short, data_dir=data, threads=1):
        if isinstance(event, MetaStep):
            times.append(time.process_time())
        elif isinstance(event, TrainingResult):
            weights = event.weights
    return (times[-1] - times[0]) / (len(times) - 1), weights


def _learned(weights: bytes, tasks: TaskSpec, horizon: int) -> Contender:
    rule = rule_weights.loads(weights)
    return Learned(backend_for(rule, torch.float32, torch.device("cpu"), parts=tasks.parts()), horizon=horizon)


def _mean_interval(steps: Iterable[object]) -> float:
    times = [time.process_time() for _ in steps]
    return (times[-1] - times[0]) / (len(times) - 1)
