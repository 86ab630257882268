"""Whether a trained optimizer is fit to be named without anyone asking for it. No import of torch."""

from __future__ import annotations

import math

from models.spec import Recipe


def shortfall(score: float, standing_still: float, recipe: Recipe) -> str | None:
    """Why `latest` and `best` may not name an optimizer; None where they may.

    An optimizer has to beat the least that there is: to leave each parameter where it began. Training can end with a
    finite score far above that, where the best of its validations had already diverged.

    score: validation score of the weights that were kept, lower is better
    standing_still: mean loss of the same validation tasks before the first step
    """
    if score < standing_still or not math.isfinite(standing_still):
        return None
    return (
        f"worse_than_standing_still: the best validation score is {score:.4g}, and parameters that never move score "
        f"{standing_still:.4g}. The weights are registered, but `latest` and `best` will not name them. Train again "
        f"with a lower recipe.meta_learning_rate (now {recipe.meta_learning_rate:g}) or a lower "
        f"recipe.{recipe.output_scales}."
    )
