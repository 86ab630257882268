"""The comparison at equal time: what the learned optimizer has reached when the baseline ends its run.

A baseline gets all its steps, the number that it was tuned for and that its schedule ends with. The learned optimizer
gets as many as fit into the same seconds, and plans them, where it asks how many there are. Where its steps are the
cheaper ones it still gets no more: no curve is longer than the horizon, which favours the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

from models.curves import Curves
from models.evaluation.statistics import Bootstrap, Floats, compare, verdict_of
from models.evaluation.step_costs import StepCosts
from models.measured import CRITERIA, Measured, numbers

PLANS = 20
"""How many lengths of run there are for a rule that plans its steps: each is a run of its own."""

Budgets: TypeAlias = Mapping[str, tuple[int, int, int]]
"""How many steps the learned optimizer makes in the time of each baseline's run: by the medians of the timing, and how
few and many by its quartiles."""


def budgets_of(measured: Mapping[str, Measured], costs: StepCosts) -> Budgets:
    horizon = measured["learned"].final.horizon
    return {name: costs.steps_in_time_of("learned", name, horizon) for name in measured if name != "learned"}


def planned_steps(made: int, horizon: int) -> int:
    """The length of the run that a rule plans which has time for so many steps: no more than those, and a multiple of a
    PLANS-th of the horizon."""
    part = max(1, horizon // PLANS)
    return horizon if made == horizon else made // part * part


def in_seconds(
    measured: Mapping[str, Measured],
    tuned: Collection[str],
    costs: StepCosts,
    budgets: Budgets,
    in_time: Mapping[int, Curves],
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """What every optimizer's step costs, and the comparisons of "learned" with all others at equal time.

    tuned: the tuned baselines, of which the verdict takes the best
    in_time: the learned optimizer's curves after each number of steps among the budgets
    `certain` is false where the quartiles of the timing decide between two verdicts.
    """
    horizon = measured["learned"].final.horizon
    comparisons: dict[str, Any] = {
        name: _against(measured[name], budget, in_time, bootstrap) for name, budget in budgets.items()
    }
    best = {criterion: _hardest({name: comparisons[name] for name in tuned}, criterion) for criterion in CRITERIA}
    comparisons["best_baseline"] = {
        criterion: {"baseline": name, **comparisons[name][criterion]} for criterion, name in best.items()
    }
    return {
        "coordinates": costs.coordinates,
        "gradient": asdict(costs.gradient),
        "step": {name: asdict(each) for name, each in costs.optimizers.items()},
        "run": {name: horizon * costs.step(name) for name in measured},
        "comparisons": comparisons,
        "verdict": {criterion: comparisons["best_baseline"][criterion]["verdict"] for criterion in CRITERIA},
    }


def _against(
    baseline: Measured, budget: tuple[int, int, int], in_time: Mapping[int, Curves], bootstrap: Bootstrap
) -> dict[str, Any]:
    steps, fewest, most = budget

    def losses(criterion: str, made: int) -> Floats:
        curves = in_time[made]
        return numbers(curves.final if criterion == "final" else curves.area)

    found: dict[str, Any] = {"learned_steps": {"median": steps, "low": fewest, "high": most}}
    for criterion in CRITERIA:
        theirs = baseline.losses(criterion)
        middle = asdict(compare(losses(criterion, steps), theirs, bootstrap))
        others = {verdict_of(losses(criterion, made), theirs, bootstrap) for made in {fewest, most} - {steps}}
        found[criterion] = middle | {"certain": others <= {middle["verdict"]}}
    return found


def _hardest(comparisons: Mapping[str, Any], criterion: str) -> str:
    """The baseline against which the learned optimizer looks worst."""

    def ratio(name: str) -> float:
        found = float(comparisons[name][criterion]["ratio_of_means"])
        return 1.0 if math.isnan(found) else found

    return max(comparisons, key=ratio)
