"""The family's best learned schedule: a learning rate and a momentum for each step, with no network.

It has the meta-steps of the optimizer's own training, by the same recipe: the same objective, data and tasks a step.
Half of them go to short trainings, one for each way to make a schedule (whose direction, over what); the way with the
best validation is trained anew with the rest. Each begins at the best constant rate of its tuned baseline.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.errors import TrainingDiverged
from models.evaluation.baseline_runs import BaselineStore
from models.evaluation.kept import kept
from models.measured import MeasuringProgress, Runs
from models.meta_train import MetaStep, TrainingResult, meta_train
from models.rule_spec import RuleSpec
from models.spec import EvaluateSpec, MetaTrainSpec, Recipe
from models.spec.family_tier import WAYS, rules_of, training_of, trial_of
from models.training.checkpoint import fingerprint
from models.training.selection import scored
from models.tuning import Tuning

UNITS = 5
"""How many runs a training counts for in the progress of an evaluation."""
ALL_UNITS = UNITS * (len(WAYS) + 1)


@dataclass(frozen=True)
class Trained:
    """What came of a training. score: infinite where it learned nothing, and then there are no weights"""

    rule: RuleSpec
    score: float
    standing_still: float
    weights: bytes
    meta_steps: int
    gradients: int
    seconds: float
    job: str | None = None


@dataclass(frozen=True)
class LearnedSchedule:
    """The schedule that was chosen, the recipe of the long training, and all trainings, that one last."""

    chosen: Trained
    recipe: Recipe
    trainings: tuple[Trained, ...]


class ScheduleTrainer:
    """Trains the schedules of one evaluation. where: the dtype and device that it measures on"""

    def __init__(
        self,
        spec: EvaluateSpec,
        progress: Runs,
        store: BaselineStore | None,
        where: tuple[torch.dtype, torch.device],
        data_dir: Path | None,
        threads: int,
    ) -> None:
        self._spec = spec
        self._progress = progress
        self._store = store
        self._where = where
        self._data_dir = data_dir
        self._threads = threads

    def learned(self, tunings: Mapping[str, Tuning]) -> Generator[MeasuringProgress, None, LearnedSchedule]:
        """tunings: of the baselines whose directions are scaled. Where nothing is learned the score is infinite."""
        assert self._spec.training is not None
        recipe = self._spec.training
        rates = {name: constant_rate(recipe, tuning) for name, tuning in tunings.items()}
        tried = []
        for rule in rules_of(rates):
            settings = rule.model_dump()
            said = f"trying a schedule of {settings['direction']} over {settings['over']}"
            tried.append((yield from self._trained(trial_of(self._spec, rule), said)))
        best = min(tried, key=lambda each: each.score)
        whole = training_of(self._spec, best.rule)
        tried.append((yield from self._trained(whole, "training the family's schedule")))
        # a short training may have been the better one
        return LearnedSchedule(min(tried, key=lambda each: each.score), whole.recipe, tuple(tried))

    def _trained(self, spec: MetaTrainSpec, message: str) -> Generator[MeasuringProgress, None, Trained]:
        rule = spec.recipe.rule
        facts = {"training": fingerprint(spec), "plugin": spec.family.plugin}
        before = self._progress.done
        found = yield from kept(
            *(self._store, "schedule", facts, self._where),
            self._progress.ticking(_training(spec, self._data_dir, self._threads), message),
            (lambda content: _loaded(rule, content), _dumped),
        )
        self._progress.done = before + UNITS
        return found.found if found.job is None else _from(found.job, found.found)


def constant_rate(recipe: Recipe, tuning: Tuning) -> float:
    """The constant learning rate of a baseline that was best for the recipe's objective; its best of all where no
    constant one was tried."""

    def score(point: Any) -> float:
        found = scored(recipe, point.area, point.final)
        return found if math.isfinite(found) else math.inf

    constant = [point for point in tuning.points if point.schedule == "constant"]
    return min(constant or tuning.points, key=score).learning_rate


def _training(spec: MetaTrainSpec, data_dir: Path | None, threads: int) -> Generator[bool | None, None, Trained]:
    """Yields True whenever another of UNITS parts of the training is done, and None in between."""
    told, seconds, rule, total = 0, 0.0, spec.recipe.rule, spec.recipe.meta_steps
    try:
        for event in meta_train(spec, data_dir=data_dir, threads=threads):
            if isinstance(event, TrainingResult):
                cost = event.summary["cost"].values()
                seconds = sum(each["seconds"] for each in cost)
                gradients = sum(each["gradient_evaluations"] for each in cost)
                score, still, steps = event.validation_score, event.standing_still, event.summary["meta_steps"]
                return Trained(rule, score, still, event.weights, steps, gradients, seconds)
            new = event.step * (UNITS - 1) // total if isinstance(event, MetaStep) else told
            yield True if new > told else None
            told = new
    except TrainingDiverged:
        return Trained(rule, math.inf, math.inf, b"", total, 0, 0.0)
    raise AssertionError("a training ends with its result")


def _from(job: str, found: Trained) -> Trained:
    return Trained(**{**vars(found), "job": job})


def _dumped(found: Trained) -> bytes:
    told = {name: value for name, value in vars(found).items() if name not in ("rule", "weights", "job")}
    return json.dumps(told | {"weights": base64.b64encode(found.weights).decode()}).encode()


def _loaded(rule: RuleSpec, content: bytes) -> Trained:
    told = json.loads(content)
    return Trained(rule=rule, **told | {"weights": base64.b64decode(told["weights"])})
