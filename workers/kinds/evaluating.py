"""An `evaluate` job: read the optimizer's weights and cost, measure it, store the result. It is never resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, assert_never

from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.store import outcomes, sweeps
from app.store.registry import Registry
from app.store.tables import JobRow
from gradsmith.rules import weights as rule_weights
from models.evaluation.break_even import Spent
from models.evaluation.by_validation import Made
from models.evaluation.evaluate import evaluate
from models.measured import BestSchedule, BestTuned, OwnScore
from models.spec import EvaluateSpec, Recipe
from models.training.selection import shortfall
from workers.attempt import Attempt
from workers.measuring import BaselineRuns, helpers_within, measure


def run(attempt: Attempt, spec: EvaluateSpec) -> None:
    """Raises as `workers.kinds.run` says."""
    measured = _optimizer(attempt, spec)
    weights = measured.weights
    attempt.settle(rule_weights.loads(weights), spec)
    attempt.announce(None)
    science = evaluate(
        *(weights, spec),
        data_dir=attempt.settings.data_dir,
        threads=attempt.runtime["threads"],
        made=_made(measured, spec),
        store=BaselineRuns(attempt),
        helpers=helpers_within(attempt.cores, attempt.settings.worker_memory_bytes, spec),
    )
    measure(attempt, science, lambda found: _registered(attempt, spec, found), _own)


def _registered(attempt: Attempt, spec: EvaluateSpec, found: BestTuned | BestSchedule) -> outcomes.Found:
    """What the evaluation found with its card, as the registry takes it."""
    poor = shortfall(found.score, found.standing_still, found.recipe)
    card = {
        "family": spec.family.name,
        "tasks": spec.family.tasks.model_dump(mode="json"),
        "overrides": spec.family.overrides,
        "seed": spec.seed,
        "recipe": found.recipe.model_dump(mode="json"),
        "runtime": attempt.runtime,
        "shortfall": poor,
    }
    stands_for = None
    match found:
        case BestTuned():
            card |= {"horizon": found.tuned["steps"], "tuned": found.tuned}
        case BestSchedule():
            stands_for = found.stands_for
            card |= {"horizon": found.recipe.horizon, "training": found.training, "stands_for": stands_for}
        case _:
            assert_never(found)
    return outcomes.Found(found.weights, found.score, found.recipe.criterion, card, poor, stands_for)


def _own(found: OwnScore) -> outcomes.Own:
    return outcomes.Own(found.score, found.recipe.criterion, shortfall(found.score, found.standing_still, found.recipe))


@dataclass(frozen=True)
class _Optimizer:
    """score: by validation; unscored: whether it was uploaded and has no such score yet; spent: seconds of training and
    of selection for each training of its sweep, itself among them; empty where it is of no sweep"""

    weights: bytes
    card: Mapping[str, Any]
    score: float | None
    unscored: bool
    spent: Sequence[tuple[float, float]]


def _made(optimizer: _Optimizer, spec: EvaluateSpec) -> Made:
    """How the optimizer was made. Its recipe counts where it was trained on the tasks that it is measured on."""
    card, recipe, own = optimizer.card, None, spec.family.tasks.model_dump(mode="json")
    if (card.get("family"), card.get("tasks")) == (spec.family.name, own):
        with suppress(ValidationError):  # another version's
            recipe = Recipe.model_validate(card.get("recipe"))
    return Made(_spent(optimizer), recipe, optimizer.score, optimizer.unscored)


def _spent(optimizer: _Optimizer) -> Spent | None:
    """What its training recorded of its cost, with all of its sweep; None where it recorded none."""
    cost = optimizer.card.get("training", {}).get("cost", {})
    if not {"training", "selection"} <= cost.keys():
        return None
    trainings = optimizer.spent or [(cost["training"]["seconds"], cost["selection"]["seconds"])]
    training, selection = (sum(seconds) for seconds in zip(*trainings, strict=True))
    return Spent(training, selection, len(trainings))


def _optimizer(attempt: Attempt, spec: EvaluateSpec) -> _Optimizer:
    def read(session: Session, _again: bool) -> _Optimizer:
        registry = Registry(session, attempt.claimed.job.workspace)
        row = registry.resolve(spec.optimizer)
        job = None if row.job is None else session.get(JobRow, row.job)
        spent = [] if job is None or job.sweep is None else sweeps.spent(session, job.sweep)
        unscored = row.uploaded is not None and row.validation_score is None
        return _Optimizer(registry.weights(row), row.card, row.validation_score, unscored, spent)

    return attempt.keeper.write(read)
