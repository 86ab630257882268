"""The best tuned baseline on the validation tasks that selected the optimizer: which of the two `best` should name.

The score is the optimizer's own: the criterion of its recipe, on the same tasks. The test tasks decide nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from gradsmith.rules import build
from gradsmith.rules import weights as rule_weights
from models.backends import Backend
from models.evaluation.break_even import Spent
from models.measured import BestTuned, OwnScore
from models.parallel import Alone
from models.rollout import Contender, Learned
from models.spec import Recipe
from models.task_spec import LossesOn
from models.tasks.base import Family
from models.training.selection import scored
from models.training.validation import Found, Validation
from models.tuning import Tuned, Tuning


@dataclass(frozen=True)
class Made:
    """How the optimizer was made, as its record tells it. None where it does not.

    recipe: of its training; score: of its validation
    elsewhere: whether nobody has scored it here
    """

    spent: Spent | None = None
    recipe: Recipe | None = None
    score: float | None = None
    elsewhere: bool = False


@dataclass(frozen=True)
class Entrant:
    """A baseline, as a validation takes what it scores."""

    family: Family
    weight: float
    tuned: Tuned

    @property
    def knows_steps(self) -> bool:
        return self.tuned.schedule != "constant"

    def contender(self, steps: int) -> Contender:
        """The baseline, whose schedule ends with the run."""
        return replace(self.tuned, steps=steps)


def comparable(made: Made, on: LossesOn) -> bool:
    """Whether a baseline can be scored as the optimizer was. A rule that was trained on several families was scored on
    all of them, and the baselines were tuned on one, for losses `on` one kind of data."""
    recipe = made.recipe
    return recipe is not None and made.score is not None and not recipe.mixture and recipe.on == on


@dataclass(frozen=True)
class Itself:
    """The optimizer, as a validation takes what it scores."""

    family: Family
    backend: Backend
    knows_steps: bool
    weight: float = 1.0

    def contender(self, steps: int) -> Contender:
        """Run as training scores it: nothing rests."""
        return Learned(self.backend, horizon=steps)


def scored_here(
    recipe: Recipe, itself: Itself, dtype: torch.dtype, device: torch.device
) -> Generator[None, None, OwnScore]:
    """What an optimizer from elsewhere comes to on the validation tasks that select those that are trained here."""
    work = Validation(recipe, (itself,), Alone(), dtype, device).found(0, 0.0)
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: Found = end.value
            return OwnScore(found.score, found.standing_still, recipe)
        yield


def scored_like(
    recipe: Recipe,
    tunings: Mapping[str, Tuning],
    families: Sequence[tuple[Family, float]],
    dtype: torch.dtype,
    device: torch.device,
) -> Generator[None, None, tuple[Tuned, Found]]:
    """The baseline whose tuning was best by the recipe's objective, and what it comes to on the validation tasks.

    families: opened for tuning, with their weights: several where the tasks are a mixture
    """
    best = min((_best(recipe, tuning) for tuning in tunings.values()), key=lambda found: found[0])[1]
    work = Validation(recipe, [Entrant(*one, best) for one in families], Alone(), dtype, device).found(0, 0.0)
    while True:
        try:
            next(work)
        except StopIteration as end:
            return best, end.value
        yield


def _best(recipe: Recipe, tuning: Tuning) -> tuple[float, Tuned]:
    def score(criterion: str) -> float:
        point = tuning.best_final if criterion == "final" else tuning.best_area
        found = scored(recipe, point.area, point.final)
        return found if math.isfinite(found) else math.inf

    criterion = min(("area", "final"), key=score)
    return score(criterion), tuning.best(criterion)


def told(made: Made, best: Tuned, found: Found) -> dict[str, Any]:
    """Both scores, and which is the better one, for the record. Lower is better; the optimizer wins a tie."""
    assert made.recipe is not None
    assert made.score is not None
    return {
        "criterion": made.recipe.criterion,
        "learned": made.score,
        "baseline": best.baseline.name,
        "learning_rate": best.learning_rate,
        "schedule": best.schedule,
        "steps": made.recipe.horizons_validated[-1],
        "tuned": found.score,
        "standing_still": found.standing_still,
        "better": "learned" if made.score <= found.score else "tuned",
    }


def as_optimizer(made: Made, best: Tuned, found: Found, family: str) -> BestTuned:
    """The baseline as a rule of kind `tuned`. Its file names no job: the same settings are the same bytes."""
    assert made.recipe is not None
    settings = {"learning_rate": best.learning_rate, "schedule": best.schedule}
    config = {"kind": "tuned", "optimizer": best.baseline.name, **settings}
    steps = made.recipe.horizons_validated[-1]
    return BestTuned(
        weights=rule_weights.dumps(build(config), {"family": family, "steps": str(steps)}),
        score=found.score,
        standing_still=found.standing_still,
        recipe=Recipe.model_validate(made.recipe.model_dump() | {"rule": config, "rules": {}}),
        tuned={"baseline": best.baseline.name, **settings, "steps": steps},
    )
