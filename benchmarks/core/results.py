"""What a run has measured, and questions that more than one reader has for it."""

from __future__ import annotations

from typing import Any

from benchmarks.core.fleet import JAX, LEARNED_OPTIMIZATION, OURS, OWN
from benchmarks.core.problem import Problem
from benchmarks.core.reference import TOLERANCE
from benchmarks.core.statistics import Spread, badness, ratios

Results = dict[str, Any]
"""Section name -> what it measured: "machine", "ceilings", "compare/<slug>/<threads>", "growth/<what>",
"step/<parameters>", "shares/<slug>", "accuracy", "bf16", "first_step"; see main. What failed is not among them."""

JAX_PEERS = (JAX, LEARNED_OPTIMIZATION)


def compared(results: Results, problem: Problem, threads: int) -> dict[str, Any] | None:
    found: dict[str, Any] | None = results.get(f"compare/{problem.slug}/{threads}")
    return found


def threads_compared(results: Results) -> list[int]:
    return sorted({int(name.split("/")[2]) for name in results if name.startswith("compare/")})


def is_right(measured: dict[str, Any], peer: str) -> bool:
    """Whether the peer's meta-gradient is that of the reference; one that is NaN is not."""
    return bool(measured["peers"][peer]["difference"] <= TOLERANCE)


def worst_of(row: dict[str, Any]) -> float:
    """The largest difference in a row of "accuracy", of a weight tensor or of the updates; NaN if any is NaN."""
    return float(max([*row["tensors"].values(), row["update"]], key=badness))


def speedups(measured: dict[str, Any], own: str = OURS) -> dict[str, Spread]:
    """Peer -> how many times as fast as it we are, pair by pair."""
    ours = measured["peers"][own]["seconds"]
    return {peer: ratios(found["seconds"], ours) for peer, found in measured["peers"].items() if peer != own}


def quickest_own(measured: dict[str, Any]) -> str:
    """The fastest of ours: threads or processes."""
    own = [peer for peer in OWN if peer in measured["peers"]]
    return min(own, key=lambda peer: Spread.of(measured["peers"][peer]["seconds"]).median)


def quickest_jax(measured: dict[str, Any]) -> str | None:
    """The fastest of the peers that are made of JAX."""
    there = [peer for peer in JAX_PEERS if peer in measured["peers"]]
    return min(there, key=lambda peer: Spread.of(measured["peers"][peer]["seconds"]).median, default=None)
