"""The result of an evaluation as plain JSON values, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from models.evaluation.pictures import pictures_of
from models.evaluation.statistics import Bootstrap, Comparison, compare
from models.measured import CRITERIA, MEANINGS, Measured, described, sweep_of
from models.spec import BaselineName, EvaluateSpec
from models.tasks.randomness import key
from models.tuning import Tuning

FORMAT = 3
PAIRED_TASKS = 512
"""The first so many tasks have a loss each in the record: enough for a picture of them, and 15 kB."""


def bootstrap_of(spec: EvaluateSpec) -> Bootstrap:
    """The resamples of the test tasks, the same for all comparisons."""
    seed = key("bootstrap", spec.seed) & (2**63 - 1)
    return Bootstrap(spec.evaluation.test_tasks, spec.evaluation.bootstrap_samples, seed)


def compared_with(
    measured: Mapping[str, Measured], tunings: Mapping[BaselineName, Tuning], bootstrap: Bootstrap
) -> dict[str, dict[str, Any]]:
    """The comparisons of "learned" with all others after equal steps, by name and criterion, and with the best tuned
    baseline."""
    found: dict[str, dict[str, Any]] = {
        name: {criterion: asdict(_compared(measured["learned"], other, criterion, bootstrap)) for criterion in CRITERIA}
        for name, other in measured.items()
        if name != "learned"
    }
    found["best_baseline"] = {
        criterion: {"baseline": best, "schedule": tunings[best].best(criterion).schedule} | found[best][criterion]
        for criterion in CRITERIA
        for best in [_best(tunings, measured, criterion)]
    }
    return found


def described_by(
    spec: EvaluateSpec,
    measured: Mapping[str, Measured],
    tunings: Mapping[BaselineName, Tuning],
    comparisons: Mapping[str, Any],
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """What was measured, on what, and the verdicts."""
    plan = spec.evaluation
    held_out = {
        name: {
            "loss": float(each.final.held_out.losses.mean()),
            "accuracy": float(each.final.held_out.accuracies.mean()),
        }
        for name, each in measured.items()
        if each.final.held_out is not None
    }
    taken = {name: each.final.pictures for name, each in measured.items() if each.final.pictures is not None}
    seen = ({"held_out": held_out} if held_out else {}) | ({"pictures": pictures_of(taken)} if taken else {})
    family = [name for name in measured if name not in ("learned", *tunings, *plan.untuned)]
    return seen | {
        "format": FORMAT,
        "family": spec.family.name,
        "overrides": spec.family.overrides,
        "seed": spec.seed,
        "horizon": plan.horizon,
        "on": plan.on,
        "criteria": MEANINGS[plan.on],
        "test_tasks": plan.test_tasks,
        "tuning_tasks": plan.tuning_tasks,
        "tiers": {"tuned": list(tunings), "untuned": list(plan.untuned)} | ({"family": family} if family else {}),
        "optimizers": {name: described(each, bootstrap) for name, each in measured.items()},
        "tuning": {name: sweep_of(tuning) for name, tuning in tunings.items()},
        "comparisons": comparisons,
        "verdict": {criterion: comparisons["best_baseline"][criterion]["verdict"] for criterion in CRITERIA},
        "paired": {criterion: _paired(measured, criterion, comparisons) for criterion in CRITERIA},
    }


def _paired(measured: Mapping[str, Measured], criterion: str, comparisons: Mapping[str, Any]) -> dict[str, Any]:
    """The losses of the optimizer and of the best tuned baseline on the same tasks, to six digits."""
    best = comparisons["best_baseline"][criterion]["baseline"]
    losses = {"learned": measured["learned"], "best_baseline": measured[best]}
    digits = {
        name: [float(f"{loss:.6g}") for loss in each.losses(criterion)[:PAIRED_TASKS]] for name, each in losses.items()
    }
    return {"baseline": best} | digits


def _best(tunings: Mapping[BaselineName, Tuning], measured: Mapping[str, Measured], criterion: str) -> BaselineName:
    """The baseline with the lowest mean on the test tasks: the hardest one to beat, chosen in the baselines' favour."""
    return min(tunings, key=lambda name: float(measured[name].losses(criterion).mean()))


def _compared(learned: Measured, baseline: Measured, criterion: str, bootstrap: Bootstrap) -> Comparison:
    return compare(learned.losses(criterion), baseline.losses(criterion), bootstrap)
