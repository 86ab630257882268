"""The tuned tier on a panel: every baseline tuned for each criterion, and run on the test tasks."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.learned_vs_tuned.measure import to_the_end
from benchmarks.panels.catalogue import Panel
from benchmarks.panels.runs import FORMAT, SEED, Found, found, kept
from models.baselines import TUNED, UNTUNED
from models.halving import tune_by_halving
from models.measured import TUNING_TRAJECTORY
from models.rollout import Sample
from models.spec import Split
from models.tasks.catalogue import open_for_tuning
from models.tuning import GridPoint, Tuned, Tuning, tune

SCHEDULES = ("constant", "linear", "cosine")
CRITERIA = ("final", "area")
HOPELESS = 1.25
"""A baseline whose tuned mean is this many times the best one's is not run on the test tasks."""


@dataclass(frozen=True)
class Entry:
    """A baseline, tuned for a criterion, on the test tasks."""

    criterion: str
    tuned: Tuned
    found: Found

    @property
    def score(self) -> float:
        """The mean over test tasks of what it was tuned for."""
        return float((self.found.final if self.criterion == "final" else self.found.area).mean())

    @property
    def label(self) -> str:
        return label(self.tuned)


def label(tuned: Tuned) -> str:
    """Its name, schedule and learning rate."""
    return f"{TUNED[tuned.baseline.name].label}, {tuned.schedule}, {tuned.learning_rate:.3g}"


def tier(panel: Panel, data_dir: Path | None, keep: Path) -> list[Entry]:
    """Every baseline and criterion for which it is in reach of the best one."""
    sweeps = [sweep(panel, name, data_dir, keep) for name in panel.rivals]
    entries = []
    for criterion in CRITERIA:
        for tuned in in_reach(sweeps, criterion):
            entries.append(Entry(criterion, tuned, of_tuned(panel, tuned, data_dir, keep)))
    return entries


def in_reach(sweeps: Sequence[Tuning], criterion: str) -> list[Tuned]:
    """Each baseline as it was best, but for those that are hopeless."""
    means = [each.best_final.final if criterion == "final" else each.best_area.area for each in sweeps]
    return [each.best(criterion) for each, mean in zip(sweeps, means, strict=True) if mean <= HOPELESS * min(means)]


def best(entries: list[Entry], criterion: str) -> Entry:
    """The one with the lowest mean on the test tasks."""
    return min((entry for entry in entries if entry.criterion == criterion), key=lambda entry: entry.score)


def sweep(panel: Panel, name: str, data_dir: Path | None, keep: Path) -> Tuning:
    """A baseline's sweep over schedules and learning rates on validation tasks."""
    sample = Sample(Split.VALIDATION, SEED, TUNING_TRAJECTORY, panel.tuning_tasks)

    def work() -> Tuning:
        search = tune_by_halving if panel.halving else tune
        family = open_for_tuning(panel.problem, data_dir)
        found: Tuning = to_the_end(search(TUNED[name], family, sample, panel.horizon, SCHEDULES))
        return found

    return kept_sweep(panel, name, keep, panel.halving, work)


def kept_sweep(panel: Panel, name: str, keep: Path, how: object, work: Callable[[], Tuning]) -> Tuning:
    """The sweep that was kept under this description, or the one that `work` makes now."""
    told = [FORMAT, *panel.told, panel.tuning_tasks, how, name, SCHEDULES]
    path = keep / "sweeps" / f"{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]}.json"
    if path.exists():
        points = tuple(GridPoint(**point) for point in json.loads(path.read_text()))
        return Tuning(TUNED[name], panel.horizon, points)
    print(f"{panel.name}: tuning {name}", file=sys.stderr, flush=True)
    tuning = work()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(point) for point in tuning.points]))
    return tuning


def of_tuned(panel: Panel, tuned: Tuned, data_dir: Path | None, keep: Path) -> Found:
    told = [*panel.told, tuned.baseline.name, tuned.schedule, tuned.learning_rate]
    return kept(Found, keep, told, lambda: found(tuned, panel, data_dir))


def untuned_adam(panel: Panel, data_dir: Path | None, keep: Path) -> Found:
    """Adam at its published default, on the test tasks."""
    adam = UNTUNED["adam_default"]
    return kept(Found, keep, [*panel.told, adam.name], lambda: found(adam, panel, data_dir))
