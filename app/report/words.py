"""How results are put into words: numbers, names, verdicts. Figures, pages and cards share them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from models.baselines import BASELINES

NOTHING = "\N{EN DASH}"  # stands for a number that was not finite, or not measured
# in the order of every table, list and document: what was learned first, then the baselines as they are registered
LABELS = (
    {"learned": "Learned"}
    | {name: baseline.label for name, baseline in BASELINES.items()}
    | {"schedule": "Learned schedule", "start": "Learned start"}
)
METRICS = ("final", "area")
WHERE = {"final": "at the end", "area": "over the whole curve"}

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


def in_words(overrides: Mapping[str, Any]) -> str:
    """What a job changed of a family's tasks: `hidden [16], activation "relu"`; "" where it changed nothing."""
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in overrides.items())


def measured_on(result: Mapping[str, Any]) -> str:
    """The family of an evaluation, and what its job changed of the tasks: `digits-mlp (hidden [16])`."""
    changes = in_words(result.get("overrides") or {})  # null in the oldest results
    return f"{result['family']} ({changes})" if changes else str(result["family"])


def judged_on(result: Mapping[str, Any]) -> str:
    """The family, and which data counts where that is not the training minibatches: `held-out data of digits-mlp`."""
    return f"held-out data of {measured_on(result)}" if on_held_out(result) else measured_on(result)


def meaning(result: Mapping[str, Any], metric: str) -> str:
    """What a number of this metric is. Results before format 3 took the loss of the last step alone."""
    if metric == "area" and not on_held_out(result):
        return "mean over the whole curve"
    return str(result.get("criteria", {}).get(metric, "loss at the last step"))


def on_held_out(result: Mapping[str, Any]) -> bool:
    """Whether losses on held-out data count. Results of before there was the choice took training losses."""
    return bool(result.get("on") == "held_out")


def loss_name(result: Mapping[str, Any]) -> str:
    """What an axis with losses is called."""
    return "held-out loss" if on_held_out(result) else "loss"


# (durations below so many seconds, the seconds of a unit, its name)
_UNITS = (
    (1e-3, 1e-6, "\N{MICRO SIGN}s"),
    (1.0, 1e-3, "ms"),
    (120.0, 1.0, "s"),
    (7200.0, 60.0, "min"),
    (math.inf, 3600.0, "h"),
)


def seconds(value: float | None) -> str:
    """A duration in the unit that suits it: `12 µs`, `3.4 ms`, `56 s`, `7.8 min`, `9.1 h`."""
    if value is None or not math.isfinite(value):
        return NOTHING
    size, unit = next((size, unit) for below, size, unit in _UNITS if abs(value) < below)
    return f"{number(value / size)} {unit}"


def best_baseline(result: Mapping[str, Any], metric: str = "final") -> Mapping[str, Any]:
    found: Mapping[str, Any] = result["comparisons"]["best_baseline"][metric]
    return found


def rival(found: Mapping[str, Any]) -> str:
    """The best baseline of a comparison, with its schedule where that is a decay: `NAG (linear)`."""
    return _scheduled(found["baseline"], found.get("schedule"))


def shown(result: Mapping[str, Any], name: str, metric: str) -> str:
    """An optimizer of a result: `NAG (linear)` with the schedule that was best for `metric`, `Prodigy (untuned)`."""
    if name in result.get("tiers", {}).get("untuned", ()):
        return f"{LABELS.get(name, name)} (untuned)"
    if name == "start":
        return f"{LABELS[result['family_tier']['start']['baseline']]} from the learned start"
    return _scheduled(name, result["tuning"].get(name, {}).get("schedule", {}).get(metric))


def _scheduled(name: str, schedule: str | None) -> str:
    # results of formats 1 and 2 name no schedule: their rates were constant
    label = LABELS.get(name, name)
    return label if schedule in (None, "constant") else f"{label} ({schedule})"


def headline(result: Mapping[str, Any]) -> str:
    """Both verdicts, said once where they agree, and against which baselines.

    `Learned optimizer beats tuned Adam, the best baseline, on quadratic`, or
    `Learned optimizer on digits-mlp: loses at the end, wins over the whole curve, against tuned NAG`.
    """
    found = {metric: best_baseline(result, metric) for metric in METRICS}
    names = {metric: rival(best) for metric, best in found.items()}
    verdicts = {best["verdict"] for best in found.values()}
    rivals = set(names.values())
    if len(verdicts) == 1:
        beats = f"Learned optimizer {VERB[verdicts.pop()]}"
        if len(rivals) == 1:
            return f"{beats} tuned {rivals.pop()}, the best baseline, on {judged_on(result)}"
        each = ", ".join(f"{names[metric]} {WHERE[metric]}" for metric in METRICS)
        return f"{beats} the best tuned baselines on {judged_on(result)}: {each}"
    if len(rivals) == 1:
        each = ", ".join(f"{found[metric]['verdict']} {WHERE[metric]}" for metric in METRICS)
        return f"Learned optimizer on {judged_on(result)}: {each}, against tuned {rivals.pop()}"
    each = ", ".join(f"{found[metric]['verdict']} {WHERE[metric]} against tuned {names[metric]}" for metric in METRICS)
    return f"Learned optimizer on {judged_on(result)}: {each}"


def subtitle(result: Mapping[str, Any]) -> str:
    """The numbers behind both verdicts."""
    final, area = (best_baseline(result, metric) for metric in METRICS)

    def times(best: Mapping[str, Any]) -> str:
        return f"{number(best['ratio_of_means'])} times {rival(best)}'s"

    curve = meaning(result, "area") if on_held_out(result) else WHERE["area"]
    return (
        f"{meaning(result, 'final')} of {result['horizon']}: {times(final)} (95 % interval "
        f"{interval(final['ratio_interval'])}); {curve}: {times(area)} ({interval(area['ratio_interval'])}); better on "
        f"{percent(final['share_won'])} and {percent(area['share_won'])} of {result['test_tasks']} held-out tasks"
    )
