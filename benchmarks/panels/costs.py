"""What steps cost on a panel, timed once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.learned_vs_tuned.measure import to_the_end
from benchmarks.panels.catalogue import Panel
from benchmarks.panels.runs import FORMAT, SEED, learned
from benchmarks.panels.tier import Entry
from gradsmith.rules import weights as rule_weights
from models.evaluation.step_costs import Seconds, StepCosts, step_costs
from models.measured import TUNING_TRAJECTORY
from models.rollout import Contender
from models.spec import Split
from models.tasks.catalogue import open_for_tuning

REPEATS = 15
"""Timings of which the least counts: other programs keep the machine busy."""


def least(timings: Sequence[StepCosts]) -> StepCosts:
    """The timing with the least median, of the gradient and of each optimizer by itself."""

    def quickest(seconds: Iterable[Seconds]) -> Seconds:
        return min(seconds, key=lambda each: each.median)

    names = timings[0].optimizers
    optimizers = {name: quickest(timing.optimizers[name] for timing in timings) for name in names}
    return StepCosts(quickest(timing.gradient for timing in timings), optimizers, timings[0].coordinates)


def costs(panel: Panel, weights: bytes, entries: Sequence[Entry], data_dir: Path | None, keep: Path) -> StepCosts:
    """Seconds of a gradient of one task, and of the own step of "learned" and of each baseline in `entries`."""
    names = sorted({entry.tuned.baseline.name for entry in entries})
    told = [FORMAT, *panel.told, rule_weights.loads(weights).config(), names]
    path = keep / "costs" / f"{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]}.json"
    if path.exists():
        kept = json.loads(path.read_text())
        optimizers = {name: Seconds(**each) for name, each in kept["optimizers"].items()}
        return StepCosts(Seconds(**kept["gradient"]), optimizers, kept["coordinates"])
    tasks, *_ = open_for_tuning(panel.problem, data_dir).sample(
        Split.VALIDATION, seed=SEED, trajectory=TUNING_TRAJECTORY, tasks=1
    )
    contenders: dict[str, Contender] = {"learned": learned(panel, weights)}
    contenders |= {entry.tuned.baseline.name: entry.tuned for entry in entries}
    found = least([to_the_end(step_costs(contenders, tasks)) for _ in range(REPEATS)])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(found)))
    return found
