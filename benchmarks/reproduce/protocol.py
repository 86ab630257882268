"""The order of an experiment: every variant is trained, ours is chosen on validation, and then the test is opened.

What was chosen, and among which variants, is written down before the first job that measures. A variant that is named
later is marked so for ever.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.reproduce.budgets import Budget
from benchmarks.reproduce.desk import Desk, identity
from benchmarks.reproduce.experiments import Experiment, Panel, Training
from gradsmith.types import Job, Optimizer
from models.spec import Recipe


@dataclass(frozen=True)
class Trained:
    """One meta-seed of a variant. optimizer: None where the job failed"""

    training: Training
    seed: int
    job: Job
    optimizer: Optimizer | None

    @property
    def score(self) -> float | None:
        """Its validation score; None where it has none, which counts as the worst."""
        return None if self.optimizer is None else self.optimizer.validation_score


@dataclass(frozen=True)
class Opening:
    """The moment before the test.

    at: when the first job that measures could be posted
    chosen: the candidate that is ours; None where there is no candidate
    named: by variant, the digest of its training and when it was named: `at`, or later
    """

    at: str
    chosen: str | None
    named: Mapping[str, Mapping[str, str]]

    @property
    def late(self) -> list[str]:
        """Variants that were named, or changed, after the test had been opened."""
        return [name for name, mark in self.named.items() if mark["at"] > self.at]


@dataclass(frozen=True)
class Measured:
    """A report of one meta-seed on one panel."""

    panel: Panel
    trained: Trained
    job: Job
    report: dict[str, Any]


def train(experiment: Experiment, budget: Budget, seeds: Sequence[int], desk: Desk) -> list[Trained]:
    """Every variant of every seed, side by side as far as there are workers."""
    asked = []
    for training in experiment.trainings:
        for seed in seeds:
            name = f"{experiment.name}: training {training.name}, seed {seed}"
            asked.append(
                (training, seed, name, desk.job("meta_train", budget.training(experiment, training, seed), name))
            )
    ended = desk.followed([(name, job) for *_, name, job in asked])
    return [
        Trained(training, seed, job, desk.client.optimizers.get(job.optimizer) if job.optimizer else None)
        for (training, seed, *_), job in zip(asked, ended, strict=True)
    ]


def choose(trained: Sequence[Trained]) -> str | None:
    """Which candidate is ours: the one with the lowest median validation score. None where there is no candidate.

    It sees no report: none has been made yet. Raises ValueError where two candidates were not validated alike.
    """
    scores: dict[str, list[float]] = {}
    criteria = set()
    for one in trained:
        if one.training.row == "ours":
            criteria.add(Recipe.model_validate(one.job.spec["recipe"]).criterion)
            scores.setdefault(one.training.name, []).append(float("inf") if one.score is None else one.score)
    if len(criteria) > 1:
        raise ValueError(f"candidates are compared by one criterion, and these have {sorted(criteria)}")
    return min(scores, key=lambda name: statistics.median(scores[name])) if scores else None


def opened(
    experiment: Experiment, budget: Budget, trained: Sequence[Trained], folder: Path, now: str | None = None
) -> Opening:
    """Writes down what the test is opened with. What was written before stays; what is new or changed is late."""
    now = now or time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    path = folder / f"opened-{experiment.name}-{budget.name}.json"
    marks = {each.name: identity("meta_train", budget.training(experiment, each, 0)) for each in experiment.trainings}
    if path.exists():
        before = Opening(**json.loads(path.read_text(encoding="utf-8")))
        same = {name for name, mark in marks.items() if before.named.get(name, {}).get("digest") == mark}
        named = {
            name: before.named[name] if name in same else {"digest": mark, "at": now} for name, mark in marks.items()
        }
        opening = Opening(before.at, before.chosen, {**before.named, **named})
    else:
        opening = Opening(now, choose(trained), {name: {"digest": mark, "at": now} for name, mark in marks.items()})
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(opening), indent=1), encoding="utf-8")
    return opening


def begin(
    experiment: Experiment,
    panels: Sequence[Panel],
    budget: Budget,
    trained: Sequence[Trained],
    opening: Opening,
    desk: Desk,
) -> None:
    """Post the first job of each of these panels, so that their baselines are tuned side by side. `measure` finds
    them. More panels than there are workers would keep the other jobs of the first one waiting."""
    for panel in panels:
        for name, body in _asked(experiment, panel, budget, trained, opening)[:1]:
            desk.job("evaluate", body, name)


def measure(
    experiment: Experiment, panel: Panel, budget: Budget, trained: Sequence[Trained], opening: Opening, desk: Desk
) -> list[Measured]:
    """Every variant's seeds on one panel. The first job tunes its baselines, which the others find stored.
    opening: that the test may be opened at all"""
    asked = _asked(experiment, panel, budget, trained, opening)
    ended: list[Job] = []
    for part in (asked[:1], asked[1:]):
        ended += desk.followed([(name, desk.job("evaluate", body, name)) for name, body in part])
    return [
        Measured(panel, one, job, desk.client.jobs.report(job).raw)
        for one, job in zip(_with_rules(trained), ended, strict=True)
        if job.status == "succeeded"
    ]


def _asked(
    experiment: Experiment, panel: Panel, budget: Budget, trained: Sequence[Trained], opening: Opening
) -> list[tuple[str, dict[str, Any]]]:
    """Each job that measures on a panel, its name and what POST /jobs gets."""
    if missing := {one.training.name for one in trained} - opening.named.keys():
        raise ValueError(f"{', '.join(sorted(missing))} was not named before the test; write the opening first")
    return [
        (
            f"{experiment.name}: measuring {one.training.name}, seed {one.seed}, on {panel.name}",
            budget.evaluation_of(experiment, panel, one.optimizer.id),
        )
        for one in _with_rules(trained)
        if one.optimizer is not None
    ]


def _with_rules(trained: Sequence[Trained]) -> list[Trained]:
    return [one for one in trained if one.optimizer is not None]
