"""What `./run bench own_problems` does."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

import gradsmith
from benchmarks.core import report as core_report
from benchmarks.core.environment import ROOT
from benchmarks.learned_vs_tuned.report import machine
from benchmarks.own_problems import loops, tables
from benchmarks.own_problems.problems import PLAN, PROBLEMS, Problem
from workshop.served import service

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
LOOPS = 16
"""Tasks of the PyTorch loop."""
QUICK_PLAN = {"test_tasks": 4, "tuning_tasks": 2, "horizon": 20, "baselines": ["adam"], "untuned": []}
QUICK_RECIPE = {"meta_steps": 4, "horizon": 20, "unroll_steps": 10, "validation_tasks": 2, "pool": 1, "tasks": 2}


def measured(
    client: gradsmith.Client, name: str, problem: Problem, folder: Path, seed: int, quick: bool = False
) -> tables.Measured:
    """Brings the table, declares the family, trains, evaluates, and uses what was made."""
    begun = time.perf_counter()
    family, tasks = f"own-{name}", dict(problem.tasks)
    place = folder / problem.table if problem.table else None
    if place is not None:
        tasks["dataset"] = client.datasets.create(place, name=f"{name}-rows", **problem.roles).name
    plan, recipe = {**PLAN, **problem.evaluation}, dict(problem.recipe)
    if quick:
        plan |= QUICK_PLAN
        recipe |= QUICK_RECIPE
    client.families.create(family, tasks, recipe=recipe, evaluation=plan)
    training = client.jobs.wait(client.jobs.create(family=family, seed=seed))
    trained = time.perf_counter()
    assert training.optimizer is not None, training.status_reason
    assert training.evaluation is not None, "an evaluation follows by default"
    report = client.jobs.report(client.jobs.wait(training.evaluation))
    ended = time.perf_counter()
    optimizer = client.optimizers.get(training.optimizer)
    tuned = next((each for each in client.optimizers.list(family=family) if each.tuned), None)
    torch.manual_seed(seed)
    fits = problem.fresh(place, seed, LOOPS)
    return tables.Measured(
        report=report,
        optimizer=optimizer,
        tuned=tuned,
        best=_named(client.optimizers.get(f"{family}@best")),
        seconds=(trained - begun, ended - trained),
        loops={
            each.reference: _looped(fits, each.reference, client, report.horizon)
            for each in (optimizer, tuned)
            if each is not None
        },
        tasks=LOOPS,
        standing=sum(float(fit.loss().detach()) for fit in fits) / len(fits),
    )


def _looped(fits: Sequence[loops.Fit], reference: str, client: gradsmith.Client, steps: int) -> float:
    """The mean last loss of these tasks."""
    optimizers = partial(gradsmith.LearnedOptimizer, rule=client.optimizers.pull(reference), steps=steps)
    return sum(loops.trained(fit, optimizers, steps) for fit in fits) / len(fits)


def _named(best: gradsmith.types.Optimizer) -> str:
    return f"tuned {best.card['tuned']['baseline']}" if best.tuned else "the learned optimizer"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./run bench own_problems", description="Five problems of one's own.")
    parser.add_argument("--only", nargs="+", choices=PROBLEMS, default=[*PROBLEMS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that all runs; implies --dry")
    parser.add_argument("--dry", action="store_true", help="print, but do not write RESULTS.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="gs-bench-") as place:
        folder = Path(place)
        subprocess.run([sys.executable, str(ROOT / "examples" / "tables.py"), place], check=True)
        with service(None, workers=1, data=folder / "data") as over, gradsmith.Client(over.url) as client:
            for name in options.only:
                how = f"`./run bench own_problems --only {name} --seed {options.seed}`, {time.strftime('%Y-%m-%d')}, "
                how += f"{machine()}; load average before: {os.getloadavg()[0]:.1f}."
                found = measured(client, name, PROBLEMS[name], folder, options.seed, options.quick)
                told = tables.lines(PROBLEMS[name].words, found)
                section = [told[0], "", how, *told[1:]]
                print("\n".join(section), flush=True)
                if not (options.dry or options.quick):
                    core_report.write(
                        RESULTS, section, (f"<!-- own_problems {name} -->", f"<!-- end of own_problems {name} -->")
                    )
    return 0
