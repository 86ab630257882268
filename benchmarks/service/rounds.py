"""Rounds in turn: what slows the machine down for a moment slows all of them down, and cancels in their ratios."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Summary = dict[str, Any]


def interleaved(rounds: int, measures: Mapping[str, Callable[[], Summary]]) -> dict[str, list[Summary]]:
    """Each of `measures` once a round, in turn."""
    found: dict[str, list[Summary]] = {name: [] for name in measures}
    for number in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure())
            rate = found[name][-1].get("rate")
            said = f"{rate:,.0f} /s" if rate is not None else f"{found[name][-1]['milliseconds']:.1f} ms"
            print(f"    round {number + 1} of {rounds}, {name}: {said}", flush=True)
    return found
