"""Time to target: how soon each optimizer reaches losses that a tuned baseline reached on other tasks.

The way of AlgoPerf (Dahl et al. 2023, "Benchmarking Neural Network Training Algorithms", section 4): targets are set by
the best tuned baseline, rerun on fresh tasks; a target that is never reached counts as an infinite time; what is shown
is a performance profile (Dolan and More 2002) up to a factor of 4, and its mean height is the score. A problem here is
one test task with one target. A baseline's time is that of the quicker of its two tuned runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.curves import Curves
from models.evaluation.statistics import Floats
from models.evaluation.step_costs import StepCosts
from models.measured import Measured, numbers

FRACTIONS = (0.25, 0.5, 0.75, 1.0)
UP_TO = 4.0
_RATIOS = np.linspace(1.0, UP_TO, 61)


@dataclass(frozen=True)
class Target:
    """The median over fresh tasks of the loss that the baseline had after `step` steps, mean of the last five."""

    fraction: float
    step: int
    loss: float


def targets(fresh: Curves) -> list[Target]:
    """What the baseline reached after a quarter, half, three quarters and all of its steps.

    fresh: the baseline's run on tasks that it was neither tuned nor is compared on
    """
    means, steps = numbers(fresh.smooth), np.array(fresh.steps)
    rows = {fraction: max(1, int(np.abs(steps - fraction * fresh.horizon).argmin())) for fraction in FRACTIONS}
    return [Target(fraction, int(steps[row]), float(np.median(means[row]))) for fraction, row in rows.items()]


def first_reached(found: Curves, target: float | Floats) -> Floats:
    """The step after which the loss, the mean of the last five steps, is first no higher than `target`: (tasks,),
    infinite where that never happens. Held-out losses count where they were measured.

    target: one for all tasks, or one for each
    """
    reached, steps = numbers(found.smooth) <= target, np.array(found.steps, dtype=np.float64)
    return np.where(reached.any(axis=0), steps[reached.argmax(axis=0)], np.inf)


def time_to_target(
    measured: Mapping[str, Measured], fixed: list[Target], baseline: str, costs: StepCosts
) -> dict[str, Any]:
    """Each optimizer's times to the `fixed` targets, which `baseline` set, and their performance profiles."""
    steps = {
        name: np.stack([_times(each, target.loss) for target in fixed]).astype(np.float64)
        for name, each in measured.items()
    }
    open_ = np.all([times > 0 for times in steps.values()], axis=0)  # (targets, tasks): not reached by the start
    seconds = {name: times * costs.step(name) for name, times in steps.items()}
    return {
        "baseline": baseline,
        "up_to": UP_TO,
        "targets": [
            {
                "fraction": target.fraction,
                "step": target.step,
                "loss": target.loss,
                "reached": {name: float(np.isfinite(times[row]).mean()) for name, times in steps.items()},
                "median_steps": {name: float(_median(times[row])) for name, times in steps.items()},
            }
            for row, target in enumerate(fixed)
        ],
        "problems": int(open_.sum()),
        "ratio": _RATIOS.tolist(),
        "steps": _profiles({name: times[open_] for name, times in steps.items()}),
        "seconds": _profiles({name: times[open_] for name, times in seconds.items()}),
    }


def _times(measured: Measured, target: float) -> Floats:
    runs = [measured.final] if measured.area is measured.final else [measured.final, measured.area]
    times: Floats = np.min([first_reached(each, target) for each in runs], axis=0)
    return times


def _profiles(times: Mapping[str, Floats]) -> dict[str, dict[str, Any]]:
    """The share of problems that each optimizer solves within a factor of the quickest's time, and the mean of
    that share over the factors 1 to 4. A problem that nobody solves counts as unsolved for all."""
    quickest = np.min(list(times.values()), axis=0)
    solved = np.isfinite(quickest)
    found = {}
    for name, own in times.items():
        ratios = np.full(own.shape, np.inf)
        ratios[solved] = own[solved] / quickest[solved]
        none = not ratios.size
        height = np.zeros(len(_RATIOS)) if none else (ratios[:, None] <= _RATIOS * (1 + 1e-12)).mean(axis=0)
        score = 0.0 if none else float(np.clip((UP_TO - ratios) / (UP_TO - 1), 0.0, 1.0).mean())
        found[name] = {"score": score, "profile": height.tolist()}
    return found


def _median(times: Floats) -> float:
    return float(np.quantile(times, 0.5, method="higher"))
