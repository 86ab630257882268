"""What is measured, by name and in which order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.core import accuracy, bf16, ceilings, first_step, growth, shares, step
from benchmarks.core.compare import compare
from benchmarks.core.fleet import EXACT_PEERS, HERE, LEARNED_OPTIMIZATION, PEERS, Bench
from benchmarks.core.problem import COMPARED, CONVNET, EXACT, MLP, QUADRATICS

Section = Callable[[Bench], Any]

CONVNET_ROUNDS = 5  # of long turns


@dataclass(frozen=True)
class Plan:
    """quick: a form that takes a minute, without what compiles long, the convnet, and much of growth."""

    quick: bool
    peers: bool
    rounds: int
    threads: tuple[int, ...]


def sections(plan: Plan) -> dict[str, Section]:
    """Name -> what measures it. What was to be shown comes before what explains it."""
    found: dict[str, Section] = {"ceilings": lambda bench: ceilings.measure(bench.folder)}
    who = tuple(peer for peer in PEERS if plan.peers or peer in HERE)
    if plan.quick:
        who = tuple(peer for peer in who if peer != LEARNED_OPTIMIZATION)
    problems = (MLP, QUADRATICS) if plan.quick else COMPARED
    for threads in plan.threads:
        for problem in problems:
            # The slowest peer on the slowest problem, a minute of compilation included: once is enough.
            spared = threads > plan.threads[0] and problem == CONVNET
            only = tuple(peer for peer in who if not (spared and peer == LEARNED_OPTIMIZATION))
            rounds = min(plan.rounds, CONVNET_ROUNDS) if problem == CONVNET else plan.rounds
            found[f"compare/{problem.slug}/{threads}"] = partial(
                compare, problem=problem, threads=threads, rounds=rounds, only=only, say=_say
            )
    exact = tuple(peer for peer in EXACT_PEERS if plan.peers or peer in HERE)
    for problem in EXACT[:1] if plan.quick else EXACT:
        found[f"exact/{problem.slug}"] = partial(
            compare, problem=problem, threads=1, rounds=plan.rounds, only=exact, say=_say
        )
    found["accuracy"] = _without_bench(accuracy.measured_apart)
    found["bf16"] = _without_bench(partial(bf16.measured_apart, plan.rounds))
    found["first_step"] = _without_bench(partial(first_step.measure, 2 if plan.quick else 9))
    for size in (10_000, 100_000) if plan.quick else (10_000, 100_000, 1_000_000, 10_000_000):
        rounds = 2 if size > 1_000_000 else 3 if plan.quick else 7
        found[f"step/{size}"] = _without_bench(partial(step.measured_apart, size, rounds))
    for problem in problems:
        found[f"shares/{problem.slug}"] = partial(shares.measure, problem=problem)
    for what, cases in growth.families(plan.quick).items():
        without_tape = what == "coordinates" and not plan.quick  # which a large problem has a smaller share of
        found[f"growth/{what}"] = partial(
            growth.measure, cases=cases, rounds=3, beside=not plan.quick, without_tape=without_tape, say=_say
        )
    return found


def _without_bench(measure: Callable[[], Any]) -> Section:
    return lambda _bench: measure()


def _say(line: str) -> None:
    print(line, flush=True)
