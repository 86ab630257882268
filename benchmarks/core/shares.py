"""Where a meta-step of ours spends its time, so that one sees where the machine's limit is lost."""

from __future__ import annotations

from typing import Any

from benchmarks.core import reference, tasks
from benchmarks.core.fleet import OURS, Bench, Worker
from benchmarks.core.problem import Problem

ROUNDS = 5
TURN_SECONDS = 0.5


def measure(bench: Bench, problem: Problem) -> dict[str, Any]:
    """{"parts": {part: [seconds of a meta-step, round by round]}}, on one thread."""
    file = bench.folder / f"{problem.slug}.npz"
    tasks.export(problem, file)
    reference.save(reference.starting_weights(), bench.weights)
    parts: dict[str, list[float]] = {}
    with Worker(bench, OURS, file, 1) as worker:
        worker.run(1)
        turn = max(1, round(TURN_SECONDS / worker.run(1).seconds))
        for _ in range(ROUNDS):
            for name, seconds in worker.profile(turn).items():
                parts.setdefault(name, []).append(seconds)
    return {"parts": parts}
