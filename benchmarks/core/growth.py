"""How ours grows: with coordinates, tasks, the unroll's length and threads; plain PyTorch beside it where that fits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.core import reference, tasks
from benchmarks.core.fleet import OURS, OURS_WITHOUT_TAPE, PLAIN, Bench, Ran, Worker, cpu_count
from benchmarks.core.machine import Stolen
from benchmarks.core.problem import MLP, Problem

TURN_SECONDS = 0.4
LINEAR_FROM = 10_000
"""Coordinates from which on the cost has to be linear; below, what a step costs whatever its size shows."""
LINEAR_TO = 1_000_000

_BARE_UP_TO = 100_000  # coordinates; the tape of ten times as many is a fiftieth of what a whole one would be
_PLAIN_MAY_TAKE = 1_000_000  # coordinate-steps: 1.4 GB of graph


@dataclass(frozen=True)
class Case:
    problem: Problem
    threads: int = 1

    @property
    def plain_fits(self) -> bool:
        problem = self.problem
        return problem.coordinate_steps <= _PLAIN_MAY_TAKE and (problem.kind != "mlp" or problem.tasks == 1)


def families(quick: bool) -> dict[str, list[Case]]:
    """What varies -> cases in growing order."""
    sizes = (100, 1_000) if quick else (100, 1_000, 10_000, 100_000)
    unrolls = (5, 20) if quick else (5, 10, 20, 50, 100)
    found = {
        "coordinates": [Case(Problem("quadratics", tasks=count)) for count in sizes],
        "unroll": [Case(Problem("quadratics", tasks=1_000, unroll_steps=steps)) for steps in unrolls],
    }
    if quick:
        return found
    counts = sorted({1, 2, cpu_count()} & set(range(1, cpu_count() + 1)))
    return found | {
        "tasks": [Case(Problem("mlp", tasks=count)) for count in (1, 2, 4, 8)],
        "threads": [Case(problem, count) for problem in (MLP, Problem("quadratics", tasks=10_000)) for count in counts],
    }


def measure(
    bench: Bench, cases: list[Case], rounds: int, beside: bool, without_tape: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """{"rows": [...], "stolen": share}. One row a case: seconds of a meta-step, round by round, and peak MB over a
    process with torch and data. All cases of ours take turns, so that a slow minute of the machine is nobody's own.

    beside: plain PyTorch too, on one thread and up to a size; without_tape: ours without one, too
    """
    reference.save(reference.starting_weights(), bench.weights)
    stolen = Stolen()
    rows: list[dict[str, Any]] = [
        {
            "coordinates": case.problem.coordinates,
            "tasks": case.problem.tasks,
            "unroll_steps": case.problem.unroll_steps,
            "threads": case.threads,
            "kind": case.problem.kind,
        }
        for case in cases
    ]
    who = [(OURS, number) for number in range(len(cases))]
    if without_tape:
        who += [(OURS_WITHOUT_TAPE, i) for i, case in enumerate(cases) if case.problem.coordinates <= _BARE_UP_TO]
    for (peer, number), found in zip(
        who, _in_turn(bench, [(peer, cases[number]) for peer, number in who], rounds), strict=True
    ):
        rows[number][peer] = found
    for row, case in zip(rows, cases, strict=True):
        if beside and case.plain_fits and case.threads == 1:
            (row[PLAIN],) = _in_turn(bench, [(PLAIN, case)], rounds)
        problem = case.problem
        rate = problem.coordinate_steps / min(row[OURS]["seconds"])
        say(
            f"    {problem.coordinates:>9,} coordinates, {problem.tasks:>7,} tasks, {problem.unroll_steps:>3} steps, "
            f"{case.threads} threads: {rate / 1e6:.2f} M coordinate-steps/s at best"
        )
    return {"rows": rows, "stolen": stolen.share()}


def _in_turn(bench: Bench, who: list[tuple[str, Case]], rounds: int) -> list[dict[str, Any]]:
    """{"seconds": [...], "busy_seconds": [...], "megabytes": peak over idle or None} for each peer on its case."""
    with ExitStack() as stack:
        workers = []
        for peer, case in who:
            file = bench.folder / f"{case.problem.slug}.npz"
            tasks.export(case.problem, file)
            workers.append(stack.enter_context(Worker(bench, peer, file, case.threads)))
            file.unlink()
        turns = []
        for worker in workers:
            first = worker.run(1).seconds  # the first makes the memory
            if first < TURN_SECONDS:
                first = worker.run(1).seconds
            turns.append(max(1, round(TURN_SECONDS / first)))
        ran: list[list[Ran]] = [[] for _ in workers]
        for _ in range(rounds):
            for worker, turn, each in zip(workers, turns, ran, strict=True):
                each.append(worker.run(turn))
        found = []
        for worker, turn, each in zip(workers, turns, ran, strict=True):
            peak, base = worker.peak_megabytes(), worker.base_megabytes
            found.append(
                {
                    "seconds": [one.seconds / turn for one in each],
                    "busy_seconds": [one.busy_seconds / turn for one in each],
                    "megabytes": None if peak is None or base is None else peak - base,
                }
            )
        return found
