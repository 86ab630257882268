"""The family tier: what the family gives without a network, with the budget of the optimizer's training.

A learned schedule runs on the same test tasks as all others. Whether it does as well as the optimizer is decided on
fresh validation tasks, which nothing was tuned or selected on: the test tasks decide nothing. A learned starting point,
followed by the best tuned baseline, is measured beside it; it is no optimizer, and `best` cannot name it.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gradsmith.rules import weights as rule_weights
from models.backends import backend_for
from models.baselines import TUNED
from models.curves import Curves
from models.evaluation.baseline_runs import BaselineStore
from models.evaluation.by_validation import Made
from models.evaluation.kept import Kept, kept
from models.evaluation.learned_schedule import ALL_UNITS, LearnedSchedule, ScheduleTrainer
from models.evaluation.record import bootstrap_of
from models.evaluation.runs import EvaluationRuns
from models.evaluation.starting_point import StartingPoint, dumped, loaded, rounds_of, starting_point, validated_rounds
from models.evaluation.statistics import Comparison, Floats, compare
from models.measured import BestSchedule, Measured, MeasuringProgress, numbers
from models.rollout import Contender, Learned
from models.spec import EvaluateSpec, Recipe
from models.spec.family_tier import DIRECTIONS
from models.tasks.catalogue import open_for_training
from models.training.selection import scored
from models.tuning import Tuned, Tuning
from models.tuning_budget import runs_of

SCHEDULE, START = "schedule", "start"
COMPARED = 2
"""Runs on fresh validation tasks: of the optimizer, and of the schedule."""


@dataclass(frozen=True)
class FamilyTier:
    """measured: on the test tasks; contenders: those of it that have a step of their own to time

    told: for the record; standin: what `best` may take in the optimizer's place
    """

    measured: Mapping[str, Measured] = field(default_factory=dict)
    contenders: Mapping[str, Contender] = field(default_factory=dict)
    told: dict[str, Any] | None = None
    standin: BestSchedule | None = None


@dataclass(frozen=True)
class Tie:
    """The optimizer against the schedule, by the recipe's objective on fresh validation tasks."""

    tasks: int
    found: Comparison

    @property
    def as_good(self) -> bool:
        """Whether the schedule is as good as the optimizer, or better."""
        return self.found.verdict != "wins"


class FamilyMeasurer:
    """Measures the family tier of one evaluation."""

    def __init__(
        self,
        runs: EvaluationRuns,
        spec: EvaluateSpec,
        store: BaselineStore | None,
        data_dir: Path | None,
        threads: int,
    ) -> None:
        assert spec.training is not None, "the spec sees to it"
        self._runs = runs
        self._spec = spec
        self._recipe: Recipe = spec.training
        self._store = store
        self._data_dir = data_dir
        self._threads = threads
        self._missing = [name for name in DIRECTIONS if name not in spec.evaluation.baselines]
        sweeps = len(self._missing) * runs_of(spec.evaluation.schedules)
        self._checks = len(validated_rounds(rounds_of(self._recipe, spec.evaluation.horizon)))
        runs.progress.total += sweeps + ALL_UNITS + 1 + COMPARED + self._checks + 2

    def measured(
        self, tunings: Mapping[str, Tuning], made: Made, tuned_score: float | None
    ) -> Generator[MeasuringProgress, None, FamilyTier]:
        """tuned_score: that of the best tuned baseline by validation, None where it is not known"""
        runs, spec = self._runs, self._spec
        swept = {**tunings, **(yield from runs.tuned(self._missing))}
        where = (runs.dtype, runs.device)
        trainer = ScheduleTrainer(spec, runs.progress, self._store, where, self._data_dir, self._threads)
        learned = yield from trainer.learned({name: swept[name] for name in DIRECTIONS})
        measured: dict[str, Measured] = {}
        contenders: dict[str, Contender] = {}
        told: dict[str, Any] = {"budget": {"meta_steps": self._recipe.meta_steps}}
        tie = None
        if learned.chosen.weights:
            contenders[SCHEDULE] = self._contender(learned.chosen.weights)
            whole = yield from runs.tested_as("the learned schedule", contenders[SCHEDULE], spec.evaluation.horizon)
            measured[SCHEDULE] = Measured(whole, whole)
            tie = yield from self._compared(contenders[SCHEDULE])
        standin = self._standin(learned, tie, made, tuned_score)
        told[SCHEDULE] = self._schedule_told(learned, tie, made, tuned_score, standin)
        best = min(tunings, key=lambda name: tunings[name].best_final.final)
        told[START] = yield from self._start(best, tunings[best], measured)
        return FamilyTier(measured, contenders, told, standin)

    def _contender(self, weights: bytes) -> Learned:
        runs, spec = self._runs, self._spec
        rule = rule_weights.loads(weights).to(runs.device, runs.dtype)
        backend = backend_for(rule, runs.dtype, runs.device, self._threads, parts=spec.family.tasks.parts())
        return Learned(backend, rests=True, horizon=spec.evaluation.horizon)

    def _compared(self, schedule: Contender) -> Generator[MeasuringProgress, None, Tie]:
        tasks = self._spec.evaluation.test_tasks
        own = yield from self._runs.on_fresh_tasks("learned", self._runs.learned)
        other = yield from self._runs.on_fresh_tasks("the learned schedule", schedule)
        found = compare(self._scores(own), self._scores(other), bootstrap_of(self._spec))
        return Tie(tasks, found)

    def _scores(self, found: Curves) -> Floats:
        """(tasks,): the recipe's objective of each task's curve."""
        pairs = zip(numbers(found.area), numbers(found.final), strict=True)
        return np.array([scored(self._recipe, area, final) for area, final in pairs])

    def _standin(
        self, learned: LearnedSchedule, tie: Tie | None, made: Made, tuned_score: float | None
    ) -> BestSchedule | None:
        if tie is None or not_taken(self._spec, learned, tie, made, tuned_score) is not None:
            return None
        chosen = learned.chosen
        return BestSchedule(
            weights=chosen.weights,
            score=chosen.score,
            standing_still=chosen.standing_still,
            recipe=learned.recipe.model_copy(update={"rule": chosen.rule}),
            stands_for=self._spec.optimizer,
            training={"meta_steps": chosen.meta_steps, "seconds": chosen.seconds, "stored": chosen.job},
        )

    def _schedule_told(
        self,
        learned: LearnedSchedule,
        tie: Tie | None,
        made: Made,
        tuned_score: float | None,
        standin: BestSchedule | None,
    ) -> dict[str, Any]:
        chosen = learned.chosen
        config = chosen.rule.model_dump()
        return {
            "direction": config["direction"],
            "over": config["over"],
            "numbers": 2 * config["knots"],
            "score": chosen.score,
            "criterion": learned.recipe.criterion,
            "tried": [
                {
                    "direction": each.rule.model_dump()["direction"],
                    "over": each.rule.model_dump()["over"],
                    "score": each.score,
                    "meta_steps": each.meta_steps,
                    "stored": each.job,
                }
                for each in learned.trainings
            ],
            "meta_steps": sum(each.meta_steps for each in learned.trainings),
            "gradient_evaluations": sum(each.gradients for each in learned.trainings),
            "seconds": sum(each.seconds for each in learned.trainings),
            "fresh_tasks": None if tie is None else {"tasks": tie.tasks, **asdict(tie.found)},
            "as_good": tie is not None and tie.as_good,
            "best": standin is not None,
            "why_not": None
            if tie is None or not tie.as_good
            else not_taken(self._spec, learned, tie, made, tuned_score),
        }

    def _start(
        self, name: str, tuning: Tuning, measured: dict[str, Measured]
    ) -> Generator[MeasuringProgress, None, dict[str, Any]]:
        """The record of the starting point; its runs on the test tasks go into `measured`."""
        runs, spec = self._runs, self._spec
        final, area = tuning.best("final"), tuning.best("area")
        before = runs.progress.done
        found = yield from self._started(name, area if self._recipe.objective == "area" else final)
        runs.progress.done = before + self._checks
        told = {"baseline": name, "stored": found.job}
        point = found.found
        if point is None:
            runs.progress.done += 2
            return told | {"none": "tasks of different sizes share no starting point, or all runs diverged"}
        said = f"{TUNED[name].label} from the learned starting point"
        last = yield from runs.tested_as(said, final, spec.evaluation.horizon, begin=point.theta)
        curve = last
        if area != final:
            curve = yield from runs.tested_as(said, area, spec.evaluation.horizon, begin=point.theta)
        else:
            runs.progress.done += 1
        measured[START] = Measured(last, curve)
        return told | {each: value for each, value in vars(point).items() if each != "theta"}

    def _started(self, name: str, tuned: Tuned) -> Generator[MeasuringProgress, None, Kept[StartingPoint | None]]:
        runs, spec, recipe = self._runs, self._spec, self._recipe
        families = (open_for_training(spec.family.tasks, self._data_dir), runs.tuning_family)
        work = starting_point(recipe, tuned, families, spec.seed, runs.dtype, runs.device)
        facts = {
            "tasks": spec.family.tasks.model_dump(mode="json"),
            "plugin": spec.family.plugin,
            "seed": spec.seed,
            "baseline": [name, TUNED[name].version, tuned.learning_rate.hex(), tuned.schedule, tuned.steps],
            "rounds": rounds_of(recipe, tuned.steps),
            "validated": recipe.criterion,
        }
        found = yield from kept(
            *(self._store, START, facts, (runs.dtype, runs.device)),
            runs.progress.ticking(work, f"learning where {TUNED[name].label} should begin"),
            (loaded, dumped),
        )
        return found


def not_taken(
    spec: EvaluateSpec, learned: LearnedSchedule, tie: Tie, made: Made, tuned_score: float | None
) -> str | None:
    """Why `best` does not take the schedule; None where it does."""
    chosen = learned.chosen
    if not tie.as_good:
        return "worse"
    if not spec.rules and spec.rule.kind in ("schedule", "tuned"):
        return "no_network"
    if made.recipe is None or made.score is None or made.recipe.on != spec.evaluation.on:
        return "other_criterion"
    if made.recipe.criterion != learned.recipe.criterion:  # of a mixture, on which no schedule was trained
        return "other_criterion"
    if tuned_score is not None and tuned_score < chosen.score:
        return "tuned_is_better"
    return None if math.isfinite(chosen.score) else "worse"
