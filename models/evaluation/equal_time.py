"""The comparison at equal time: what the learned optimizer has reached when the baseline ends its run.

A baseline gets all its steps, the number that it was tuned for. The learned optimizer gets as many as fit into the same
seconds. Where its steps are the cheaper ones it still gets no more: no curve is longer than the horizon, which favours
the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from models.evaluation.statistics import Bootstrap, Floats, compare, verdict_of
from models.evaluation.step_costs import StepCosts
from models.measured import CRITERIA, Measured, numbers


def in_seconds(
    measured: Mapping[str, Measured], tuned: Collection[str], costs: StepCosts, bootstrap: Bootstrap
) -> dict[str, Any]:
    """What every optimizer's step costs, and the comparisons of "learned" with all others at equal time.

    tuned: the tuned baselines, of which the verdict takes the best
    `certain` is false where the quartiles of the timing decide between two verdicts.
    """
    horizon = measured["learned"].final.horizon
    comparisons: dict[str, Any] = {
        name: _against(name, measured, costs, bootstrap) for name in measured if name != "learned"
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


def _against(name: str, measured: Mapping[str, Measured], costs: StepCosts, bootstrap: Bootstrap) -> dict[str, Any]:
    learned = measured["learned"].final
    steps, fewest, most = costs.steps_in_time_of("learned", name, learned.horizon)

    def losses(criterion: str, made: int) -> Floats:
        cut = learned.cut(made)
        return numbers(cut.final if criterion == "final" else cut.area)

    found: dict[str, Any] = {"learned_steps": {"median": steps, "low": fewest, "high": most}}
    for criterion in CRITERIA:
        theirs = measured[name].losses(criterion)
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
