"""How results are put into words: numbers, names, verdicts. Figures, pages and cards share them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

NOTHING = "\N{EN DASH}"  # stands for a number that was not finite, or not measured
LABELS = {"learned": "Learned", "adam": "Adam", "rmsprop": "RMSprop", "nag": "NAG", "sgd": "SGD"}
METRICS = {"final": "loss at the last step", "area": "mean over the whole curve"}

VERB = {"wins": "beats", "ties": "ties with", "loses": "loses to"}


def number(value: float | None) -> str:
    """Three significant digits; a dash for what was not finite."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    if 0.001 <= abs(value) < 10_000:
        return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def interval(bounds: list[float | None] | None) -> str:
    return NOTHING if not bounds else f"{number(bounds[0])} to {number(bounds[1])}"


def percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.0f} %"


def ordered(names: Mapping[str, Any]) -> list[str]:
    """The learned optimizer first, then baselines in a fixed order, then what we do not know."""
    known = [name for name in LABELS if name in names]
    return known + sorted(set(names) - set(known))


def best_baseline(result: Mapping[str, Any], metric: str = "final") -> Mapping[str, Any]:
    found: Mapping[str, Any] = result["comparisons"]["best_baseline"][metric]
    return found


def headline(result: Mapping[str, Any]) -> str:
    """`Learned optimizer beats tuned Adam on quadratic`."""
    best = best_baseline(result)
    name = LABELS.get(best["baseline"], best["baseline"])
    return f"Learned optimizer {VERB[best['verdict']]} tuned {name}, the best baseline, on {result['family']}"


def subtitle(result: Mapping[str, Any]) -> str:
    best = best_baseline(result)
    return (
        f"mean loss at step {result['horizon']}: {number(best['ratio_of_means'])} times the baseline's "
        f"(95 % interval {interval(best['ratio_interval'])}), better on {percent(best['share_won'])} "
        f"of {result['test_tasks']} held-out tasks"
    )
