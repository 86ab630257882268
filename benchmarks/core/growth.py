"""How ours grows: with coordinates, tasks and the unroll's length; plain PyTorch beside it where that fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.core import reference, tasks
from benchmarks.core.fleet import OURS, PLAIN, Bench, Worker
from benchmarks.core.problem import Problem
from benchmarks.core.statistics import Spread

_PLAIN_MAY_TAKE = 2_000_000  # coordinate-steps: 2.7 GB of graph


def families(quick: bool) -> dict[str, list[Problem]]:
    """What varies -> problems in growing order."""
    sizes = (100, 1_000) if quick else (100, 1_000, 10_000, 30_000, 100_000)
    unrolls = (5, 20) if quick else (5, 10, 20, 50, 100)
    found = {
        "coordinates": [Problem("quadratics", tasks=count) for count in sizes],
        "unroll": [Problem("quadratics", tasks=1_000, unroll_steps=steps) for steps in unrolls],
    }
    return found if quick else found | {"tasks": [Problem("mlp", tasks=count) for count in (1, 2, 4, 8)]}


def measure(
    bench: Bench, problems: list[Problem], rounds: int, beside: bool, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """One row a problem: seconds of a meta-step on one thread, and peak MB over a process with torch and data.

    beside: plain PyTorch too, up to a size
    """
    rows: list[dict[str, Any]] = []
    reference.save(reference.starting_weights(), bench.weights)
    for problem in problems:
        file = bench.folder / f"{problem.slug}.npz"
        tasks.export(problem, file)
        row: dict[str, Any] = {
            "coordinates": problem.coordinates,
            "tasks": problem.tasks,
            "unroll_steps": problem.unroll_steps,
        }
        for peer in (OURS, PLAIN):
            fits = problem.coordinate_steps <= _PLAIN_MAY_TAKE and (problem.kind != "mlp" or problem.tasks == 1)
            if peer == PLAIN and not (fits and beside):
                continue
            with Worker(bench, peer, file, 1) as worker:
                worker.run(1)
                turn = max(1, round(0.2 / worker.run(1)))
                seconds = [worker.run(turn) / turn for _ in range(rounds)]
                peak, base = worker.peak_megabytes(), worker.base_megabytes
            row[peer] = {
                "seconds": seconds,
                "rate": Spread.of([problem.coordinate_steps / each for each in seconds]),
                "megabytes": None if peak is None or base is None else peak - base,
            }
        file.unlink()
        rows.append(row)
        say(
            f"    {problem.coordinates:>9,} coordinates, {problem.tasks:>7,} tasks, {problem.unroll_steps:>3} steps: "
            f"{row[OURS]['rate'].median / 1e6:.2f} M coordinate-steps/s"
        )
    return rows
