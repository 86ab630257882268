"""How good a rule is, from its validation curves, and whether it is fit to be named without anyone asking for it. No
import of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from models.spec import Recipe

LEAST = 1e-30
"""Geometric means take what is lower for this: a loss of zero has no logarithm."""

STUCK_ABOVE = 0.7  # of the loss of standing still
STUCK_WITHIN = 0.02  # relative movement of the last validations


def scored(recipe: Recipe, area: float, final: float) -> float:
    """The score of one validated curve. area: mean loss over all steps; final: over the last of them."""
    match recipe.objective:
        case "area":
            return area
        case "final":
            return final
        case "both":
            return geometric_mean([area, final], [1.0, 1.0])


def geometric_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """The weighted geometric mean; of one value, that value to the last bit. Not finite where one is not."""
    if len(values) == 1:
        return values[0]
    if not all(math.isfinite(value) for value in values):
        return math.inf
    total = sum(weights)
    pairs = zip(values, weights, strict=True)
    return math.exp(sum(weight / total * math.log(max(value, LEAST)) for value, weight in pairs))


def stuck(scores: Sequence[float], standing_still: float | None, patience: int) -> bool:
    """Whether the last `patience` validations neither moved nor did much better than standing still. Some
    initialisations sit on such a plateau for minutes."""
    recent = scores[-patience:]
    if len(recent) < patience:
        return False
    low, high = min(recent), max(recent)
    still = standing_still or math.inf
    return not math.isfinite(low) or (low > STUCK_ABOVE * still and high - low < STUCK_WITHIN * low)


def far_above(score: float, best: float, rollback: float) -> bool:
    """Whether the logarithm of `score` is more than `rollback` above that of `best`."""
    if not math.isfinite(score):
        return True
    return math.log(max(score, LEAST)) > math.log(max(best, LEAST)) + rollback


def shortfall(score: float, standing_still: float, recipe: Recipe) -> str | None:
    """Why `latest` and `best` may not name an optimizer; None where they may.

    An optimizer has to beat the least that there is: to leave each parameter where it began. Training can end with a
    finite score far above that, where the best of its validations had already diverged.

    score: validation score of the weights that were kept, lower is better
    standing_still: what the same validation tasks score before the first step
    """
    if score < standing_still or not math.isfinite(standing_still):
        return None
    found = (
        f"worse_than_standing_still: the best validation score is {score:.4g}, and parameters that never move score "
        f"{standing_still:.4g}. The weights are registered, but `latest` and `best` will not name them."
    )
    if not recipe.rule.config.learns:
        return f"{found} No learning rate of its sweep is better; evaluate over more steps"
    return (
        f"{found} Train again with a lower recipe.meta_learning_rate (now {recipe.meta_learning_rate:g}) or a lower "
        f"recipe.{recipe.output_scales}."
    )
