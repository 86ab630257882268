"""What a job would need, and a curve, as a terminal shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from gradsmith.cli import show

if TYPE_CHECKING:
    from gradsmith.types import Price, Report

_PARTS = ("training", "selection", "tuning", "evaluation")
_EIGHTHS = " ▁▂▃▄▅▆▇█"


def told(price: Price) -> None:
    """The figures of a price, one a line."""
    error, queue = price.error, price.queue
    lines = {
        "family": price.family,
        "coordinates": f"{price.coordinates_per_task:,} a task",
        "memory": f"{price.memory_bytes / 2**30:.2f} GiB",
        **in_words(price.seconds, price.rests_on),
        "error": ""
        if error["p90"] is None
        else f"actual over predicted: median {error['p50']:.2f}, p90 {error['p90']:.2f} of {error['jobs']} jobs",
        "queue": f"{queue['jobs']} jobs, {'no' if queue['workers'] is None else queue['workers']} workers known"
        + ("" if queue["seconds"] is None else f": begins in about {show.duration(queue['seconds'])}"),
    }
    show.fields({name: value for name, value in lines.items() if value})
    for note in (*price.notes, *([] if price.advice is None else [price.advice])):
        show.paragraph(note)


def in_words(seconds: Mapping[str, float] | None, rests_on: Sequence[str]) -> dict[str, str]:
    """Seconds by what they are for, and what they rest on; nothing where they are not known."""
    if seconds is None:
        return {"seconds": "not known"}
    parts = ", ".join(f"{name} {_duration(seconds[name])}" for name in _PARTS)
    return {"seconds": f"{_duration(seconds['total'])}: {parts}", "rests on": "; ".join(rests_on)}


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else show.duration(seconds)


def previewed(report: Report) -> None:
    """What a preview found: the price of its own calibration, and the curve of each baseline."""
    raw = report.raw
    lines = {
        "coordinates": f"{raw['coordinates_per_task']:,} a task",
        "memory": f"{raw['training_memory_bytes'] / 2**30:.2f} GiB for a training",
        **in_words(raw.get("price", {}).get("seconds"), raw.get("price", {}).get("rests_on", ())),
    }
    show.fields(lines)
    for name, measured in report.optimizers.items():
        rate, schedule = (raw["tuning"][name][part]["final"] for part in ("learning_rate", "schedule"))
        typer.echo(f"\n{name}, learning rate {show.number(rate)}, {schedule}: mean loss over {report.horizon} steps")
        typer.echo("\n".join(chart(measured["curve"]["mean"])))


def chart(values: Sequence[Any], width: int = 60, height: int = 8) -> list[str]:
    """A curve as lines of blocks, by its logarithm where all values are positive; a gap where one is not finite."""
    finite = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
    if not finite:
        return ["(no finite loss: it diverged)"]
    logarithmic = min(finite) > 0
    count = min(width, len(values))
    shown = [values[place * (len(values) - 1) // max(1, count - 1)] for place in range(count)]
    scale = math.log if logarithmic else float
    low, high = scale(min(finite)), scale(max(finite))
    eighths = [_height(value, scale, low, high, height) for value in shown]
    rows = []
    for row in reversed(range(height)):
        label = show.number(max(finite)) if row == height - 1 else show.number(min(finite)) if row == 0 else ""
        cells = "".join(_EIGHTHS[max(0, min(8, filled - 8 * row))] for filled in eighths)
        rows.append(f"{label:>10} {cells}".rstrip())
    return rows


def _height(value: Any, scale: Any, low: float, high: float, height: int) -> int:
    """In eighths of a row; 1 at least for what is there."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return 0
    share = (scale(value) - low) / ((high - low) or 1.0)
    return max(1, round(8 * height * float(share)))
