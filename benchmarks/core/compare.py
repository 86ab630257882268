"""Ours against the peers on one problem: first that all give the same meta-gradient, then rounds in turn."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.core import reference, tasks
from benchmarks.core.fleet import EXACT_PEERS, HERE, OURS, OURS_IN_PROCESSES, PEERS, Bench, Worker, WorkerDied
from benchmarks.core.machine import Stolen
from benchmarks.core.problem import Problem

ROUND_SECONDS = 0.6
"""A peer's turn is at least one meta-step and lasts about this long: short, so that a stall of the machine hits few
turns, and long against the pipe's 0.1 ms."""


@dataclass
class Measured:
    """One peer on one problem. seconds: for one meta-step, round by round; busy_seconds: of the processor, likewise;
    compile_seconds: what the first two windows took beyond two later ones, that is JAX's compilation; difference: from
    the float64 reference."""

    about: dict[str, str]
    difference: float
    compile_seconds: float
    seconds: list[float] = field(default_factory=list)
    busy_seconds: list[float] = field(default_factory=list)
    base_megabytes: float | None = None
    peak_megabytes: float | None = None


def compare(
    bench: Bench, problem: Problem, threads: int, rounds: int, only: tuple[str, ...], say: Callable[[str], None]
) -> dict[str, Any]:
    """{"peers": {peer: Measured as a dict}, "missing": {peer: why}, "stolen": share of the machine's time, or None}."""
    problem_file = bench.folder / f"{problem.slug}.npz"
    tasks.export(problem, problem_file)
    weights = reference.starting_weights(problem.rule)
    reference.save(weights, bench.weights)
    missing: dict[str, str] = {}
    found: dict[str, Measured] = {}
    with ExitStack() as stack:
        workers: list[Worker] = []
        for peer in only:
            if peer == OURS_IN_PROCESSES and not 1 < threads <= problem.tasks:
                continue  # ranks own whole tasks
            if peer not in HERE and bench.peers_python is None:
                missing[peer] = "its packages could not be installed"
                continue
            try:
                workers.append(stack.enter_context(Worker(bench, peer, problem_file, threads)))
            except WorkerDied as error:
                missing[peer] = str(error)
        turns: dict[str, int] = {}
        for worker in list(workers):
            try:
                turns[worker.peer] = _warmed(worker, found, bench, problem, say)
            except WorkerDied as error:  # the others go on without it
                missing[worker.peer] = str(error)
                workers.remove(worker)
        if OURS in missing:
            raise WorkerDied(missing[OURS])
        stolen = Stolen()
        for number in range(rounds):
            first = number % len(workers)
            for worker in workers[first:] + workers[:first]:
                ran = worker.run(turns[worker.peer])
                found[worker.peer].seconds.append(ran.seconds / turns[worker.peer])
                found[worker.peer].busy_seconds.append(ran.busy_seconds / turns[worker.peer])
        share = stolen.share()
        for worker in workers:
            found[worker.peer].peak_megabytes = worker.peak_megabytes()
    ordered = [peer for peer in (*PEERS, *EXACT_PEERS[1:]) if peer in found]
    return {"peers": {peer: asdict(found[peer]) for peer in ordered}, "missing": missing, "stolen": share}


def _warmed(
    worker: Worker, found: dict[str, Measured], bench: Bench, problem: Problem, say: Callable[[str], None]
) -> int:
    """Check the meta-gradient, warm up, and return the meta-steps of one turn."""
    started = time.perf_counter()
    gradient = worker.gradient(bench.folder / f"{worker.peer}-gradient.npz")
    worker.run(1)
    warm_seconds = time.perf_counter() - started
    seconds = worker.run(1).seconds
    if seconds < ROUND_SECONDS:
        seconds = min(seconds, worker.run(1).seconds)
    truth = reference.meta_gradient(problem, worker.counted_losses)
    difference = reference.difference(gradient, truth)
    say(
        f"    {worker.about['name']}: {worker.about['versions']}; {worker.about['settings']}; meta-gradient within "
        f"{difference:.1e} of float64{'' if difference <= reference.TOLERANCE else '  WRONG'}; warm in "
        f"{warm_seconds:.1f} s"
    )
    worker.forget_peak()
    compile_seconds = max(0.0, warm_seconds - 2 * seconds)
    found[worker.peer] = Measured(worker.about, difference, compile_seconds, base_megabytes=worker.base_megabytes)
    return max(1, math.ceil(ROUND_SECONDS / seconds))
