"""An `evaluate` job: read the optimizer's weights and cost, measure it, store the result. It is never resumed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, assert_never

from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.store import outcomes
from app.store.registry import Registry
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
    weights, card, score, elsewhere = _optimizer(attempt, spec)
    attempt.settle(rule_weights.loads(weights), spec)
    attempt.announce(None)
    science = evaluate(
        *(weights, spec),
        data_dir=attempt.settings.data_dir,
        threads=attempt.runtime["threads"],
        made=_made(card, score, spec, elsewhere=elsewhere),
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


def _made(card: Mapping[str, Any], score: float | None, spec: EvaluateSpec, *, elsewhere: bool) -> Made:
    """How the optimizer was made. Its recipe counts where it was trained on the tasks that it is measured on."""
    recipe, own = None, spec.family.tasks.model_dump(mode="json")
    if (card.get("family"), card.get("tasks")) == (spec.family.name, own):
        with suppress(ValidationError):  # another version's
            recipe = Recipe.model_validate(card.get("recipe"))
    return Made(_spent(card), recipe, score, elsewhere)


def _spent(card: Mapping[str, Any]) -> Spent | None:
    """What the optimizer's training recorded of its cost; None where it recorded none."""
    cost = card.get("training", {}).get("cost", {})
    if not {"training", "selection"} <= cost.keys():
        return None
    return Spent(cost["training"]["seconds"], cost["selection"]["seconds"])


def _optimizer(attempt: Attempt, spec: EvaluateSpec) -> tuple[bytes, dict[str, Any], float | None, bool]:
    """Its weights, its card, its validation score, and whether it was uploaded and has not been scored yet."""

    def read(session: Session, _again: bool) -> tuple[bytes, dict[str, Any], float | None, bool]:
        registry = Registry(session, attempt.claimed.job.workspace)
        row = registry.resolve(spec.optimizer)
        unscored = row.uploaded is not None and row.validation_score is None
        return registry.weights(row), row.card, row.validation_score, unscored

    return attempt.keeper.write(read)
