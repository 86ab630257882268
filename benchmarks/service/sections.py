"""What is measured, by name and in which order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.service import aliases, curves, keys, peer_options, points, posts, queue, small, streams
from benchmarks.service.bench import Bench

Section = Callable[[Bench], Any]


@dataclass(frozen=True)
class Plan:
    """seconds: of one round of one server."""

    rounds: int
    seconds: float
    points: int
    peer_points: int
    curve_points: int
    queued: int
    starts: int


FULL = Plan(rounds=5, seconds=3.0, points=200_000, peer_points=20_000, curve_points=100_000, queued=10_000, starts=500)
QUICK = Plan(rounds=2, seconds=1.5, points=50_000, peer_points=4_000, curve_points=10_000, queued=1_000, starts=200)


def on_request(plan: Plan) -> dict[str, Section]:
    """What is measured only when it is asked for by name."""
    return {"mlflow": partial(peer_options.measure, rounds=max(2, plan.rounds - 2), seconds=plan.seconds)}


def sections(plan: Plan) -> dict[str, Section]:
    """Name -> what measures it."""
    rounds, seconds = plan.rounds, plan.seconds
    few = max(2, rounds - 2)  # of what moves much data, or starts slowly
    return {
        "posts": partial(posts.measure, rounds=rounds, seconds=seconds),
        "aliases": partial(aliases.measure, rounds=rounds, seconds=seconds),
        "keys": partial(keys.measure, rounds=few, seconds=seconds),
        "small": partial(small.measure, rounds=few, seconds=seconds / 2),
        "points": partial(points.measure, rounds=few, count=plan.points, peer_count=plan.peer_points),
        "curves": partial(curves.measure, rounds=rounds, count=plan.curve_points),
        "streams": partial(streams.measure, rounds=few, seconds=1.5 * seconds),
        "queue": partial(queue.measure, rounds=few, seconds=seconds / 2, length=plan.queued, starts=plan.starts),
    }
