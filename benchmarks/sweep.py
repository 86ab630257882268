"""A sweep of 20 on two workers, one of which is killed twice, against the same seeds in one process.

    ./run bench sweep [--trials 20] [--parallel 4] [--kills 2] [--seed N] [--dry]

Starts the service as `./run serve` does with two workers, on an empty data folder, and posts a sweep by TPE over three
fields of the recipe. Whenever a worker is in the middle of a child it is killed with SIGKILL, `--kills` times; the
supervisor starts it again. Then the same search runs in this process alone, trial after trial, and all values, scores
and weights are compared.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradsmith
from app.store import sweeps
from app.store.jobs import JobRepository, spec_of
from app.store.registry import Registry
from app.store.sweeps import Trial
from app.store.tables import JobRow
from benchmarks.core import report as core_report
from benchmarks.core.environment import ROOT
from benchmarks.learned_vs_tuned.report import machine
from models.spec import SweepSpec
from workshop.served import Service, service
from workshop.sweeping import searched_here

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
MARKS = ("<!-- sweep -->", "<!-- end of sweep -->")
PATIENCE_SECONDS = 3600.0
# A lost worker is noticed within seconds, so that the benchmark is not spent on waiting for leases.
QUICK = {
    "GRADSMITH_LEASE_SECONDS": "15",
    "GRADSMITH_LEASE_RENEWAL_SECONDS": "2",
    "GRADSMITH_RECONCILE_INTERVAL_SECONDS": "2",
    "GRADSMITH_CHECKPOINT_INTERVAL_SECONDS": "1",
    "GRADSMITH_CURVE_FLUSH_SECONDS": "0.3",
}
RECIPE: dict[str, Any] = {
    "meta_learning_rate": {"low": 0.0003, "high": 0.03, "log": True},
    "rule": {"hidden_size": [8, 16, 32]},
    "averaging": {"low": 0.5, "high": 0.99},
    "meta_steps": 100,
    "validation_interval": 25,
    "tasks": 8,
    "validation_tasks": 32,
}


@dataclass(frozen=True)
class Found:
    """What the workers made. lost: how many workers each child lost"""

    sweep: JobRow
    trials: list[Trial]
    weights: list[bytes]
    lost: list[int]
    kills: int
    seconds: float


def swept(trials: int, parallel: int, kills: int, seed: int, folder: Path) -> Found:
    """The sweep by two workers, one of which is killed so many times."""
    with service(None, workers=2, data=folder, changes=QUICK) as over, gradsmith.Client(over.url) as client:
        began = time.monotonic()
        sweep = client.sweeps.create(
            "quadratic", RECIPE, sampler="tpe", trials=trials, parallel=parallel, seed=seed, evaluate=False
        )
        killed: list[int] = []
        spared: int | None = None  # the worker that is left alone
        while (row := _row(over, sweep.id)).status == "running":
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise RuntimeError(f"the sweep has not ended after {PATIENCE_SECONDS:.0f} s: {row.step} of {row.total}")
            busy = _busy(over, sweep.id) - set(killed)  # whose leases have not run out
            if len(killed) < kills and len(busy) == 2:
                spared = spared if spared in busy else max(busy)
                [victim] = busy - {spared}
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)
                print(f"killed worker {victim} after {row.step} of {row.total} children", flush=True)
            time.sleep(0.05)
        seconds = time.monotonic() - began
        with over.database.read() as session:
            made = sweeps.trials(session, sweep.id)
            registry, jobs = Registry(session), JobRepository(session)
            weights = [registry.weights(registry.resolve(each.optimizer)) for each in made if each.optimizer]
            lost = [jobs.get(each.job).lost_workers for each in made]
    return Found(row, made, weights, lost, len(killed), seconds)


def _row(over: Service, sweep: str) -> JobRow:
    with over.database.read() as session:
        return JobRepository(session).get(sweep)


def _busy(over: Service, sweep: str) -> set[int]:
    """The process ids of the workers that are in the middle of a child of the sweep."""
    with over.database.read() as session:
        running = JobRepository(session).page(sweep=sweep, status="running", limit=100).rows
    names = [row.lease_owner.rpartition(":")[0] for row in running if row.lease_owner and row.step > 0]
    return {int(name.rpartition("-")[2]) for name in names}


def lines(found: Found, here: Sequence[Trial], weights: Sequence[bytes], seconds: float) -> list[str]:
    same = {
        "values": [each.values for each in found.trials] == [each.values for each in here],
        "validation scores": [each.score for each in found.trials] == [each.score for each in here],
        "weights": found.weights == list(weights),
    }
    best = min(here, key=lambda each: each.rank)
    named = found.trials[best.number].optimizer == found.sweep.optimizer
    return [
        f"The sweep {found.sweep.status} with {found.sweep.step} of {found.sweep.total} children in "
        f"{found.seconds:.0f} s; {found.kills} workers were killed, and {sum(found.lost)} children ran again for it. "
        f"Trials: {len({each.number for each in found.trials})} different numbers, {len(found.trials)} jobs, "
        f"{len(found.weights)} optimizers.",
        "",
        f"The same seeds in one process, {seconds:.0f} s: "
        + ", ".join(f"{name} {'equal' if equal else 'NOT equal'}" for name, equal in same.items())
        + f" for all {len(here)} trials; its best, trial {best.number} with {best.score:.4f}, is "
        f"{'' if named else 'NOT '}the sweep's result.",
        "",
        "| trial | meta-learning rate | hidden size | averaging | validation score | best so far | workers lost |",
        "|---|---|---|---|---|---|---|",
        *_rows(found),
    ]


def _rows(found: Found) -> list[str]:
    rows, best = [], float("inf")
    for each, lost in zip(found.trials, found.lost, strict=True):
        best = min(best, each.score if each.score is not None else best)
        values = [each.values[f"recipe.{name}"] for name in ("meta_learning_rate", "rule.hidden_size", "averaging")]
        shown = " | ".join(f"{value:.4g}" for value in values)
        score = "none" if each.score is None else f"{each.score:.4f}"
        rows.append(f"| {each.number} | {shown} | {score} | {best:.4f} | {lost or ''} |")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./run bench sweep", description="A sweep that outlives its workers.")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--dry", action="store_true", help="print, but do not write RESULTS.md")
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="gs-bench-") as folder:
        found = swept(options.trials, options.parallel, options.kills, options.seed, Path(folder))
        spec = spec_of(found.sweep)
        assert isinstance(spec, SweepSpec)
        began = time.monotonic()
        here, weights = searched_here(spec, Path(folder))
        alone = time.monotonic() - began
    text = [
        "## A sweep that outlives its workers",
        "",
        f"`./run bench sweep --trials {options.trials} --parallel {options.parallel} --kills {options.kills} --seed "
        f"{options.seed}`, {time.strftime('%Y-%m-%d')}, {machine()}; load average before: {load:.1f}.",
        "",
        "A service as `./run serve` starts it with two workers; a sweep by TPE on `quadratic`. A worker is killed with "
        "SIGKILL in the middle of a child, and again once it has been started anew and is in the middle of another.",
        "",
        *lines(found, here, weights, alone),
    ]
    print("\n".join(text), flush=True)
    if not options.dry:
        core_report.write(RESULTS, text, MARKS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
