"""Break-even: after how many runs a trained optimizer has saved the seconds that making it took."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.evaluation.statistics import Floats
from models.evaluation.step_costs import StepCosts
from models.evaluation.time_to_target import first_reached
from models.measured import Measured, numbers


@dataclass(frozen=True)
class Spent:
    """Seconds that making the optimizer took: its meta-training, and the validations that selected its weights.

    trainings: how many there were; those of a sweep all count for the one that was kept
    """

    training: float
    selection: float
    trainings: int = 1


def break_even(
    learned: Measured, baseline: str, tuned: Measured, runs: int, costs: StepCosts, spent: Spent | None
) -> dict[str, Any]:
    """Compare the time to the loss at which the tuned baseline ends, task by task; medians over tasks count.

    baseline, tuned: the best tuned baseline's name, and its runs
    runs: how many runs its tuning took
    spent: None where it is not known

    `runs` of the answer is the number of runs after which training and selection have paid, None for never (`never`
    says why) or not known; `runs_beside_tuning` counts only what they cost beyond tuning the baseline on one task.
    """
    ends = numbers(tuned.final.final)
    own, other = first_reached(learned.final, ends), first_reached(tuned.final, ends)
    reached = float(np.isfinite(own[np.isfinite(ends)]).mean()) if np.isfinite(ends).any() else 0.0
    seconds, theirs = _median(own) * costs.step("learned"), _median(other) * costs.step(baseline)
    tuning = runs * tuned.final.horizon * costs.step(baseline)
    saved = theirs - seconds
    total = None if spent is None else spent.training + spent.selection
    pays = math.isfinite(saved) and saved > 0
    return {
        "baseline": baseline,
        "reached": reached,
        "learned_seconds": seconds,
        "baseline_seconds": theirs,
        "saved_seconds": saved,
        "training_seconds": None if spent is None else spent.training,
        "selection_seconds": None if spent is None else spent.selection,
        "trainings": None if spent is None else spent.trainings,
        "tuning_runs": runs,
        "tuning_seconds": tuning,
        "runs": math.ceil(total / saved) if pays and total is not None else None,
        "runs_beside_tuning": math.ceil(max(0.0, total - tuning) / saved) if pays and total is not None else None,
        "never": None if pays else "does_not_reach" if math.isinf(seconds) else "not_faster",
    }


def _median(steps: Floats) -> float:
    return float(np.quantile(steps, 0.5, method="higher"))
