"""What a job would need, and a curve, as a terminal shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from gradsmith.cli import show
from gradsmith.cli.picture import chart
from gradsmith.cli.spoken import as_commands

if TYPE_CHECKING:
    from gradsmith.types import Price, Report

_PARTS = ("training", "selection", "tuning", "evaluation")


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
        "queue": _queue(queue),
    }
    show.fields({name: value for name, value in lines.items() if value})
    for note in (*price.notes, *([] if price.advice is None else [price.advice])):
        show.paragraph(as_commands(note))


def _queue(queue: Mapping[str, Any]) -> str:
    """What is before the job, and when it begins."""
    jobs = "no job" if not queue["jobs"] else "1 job" if queue["jobs"] == 1 else f"{queue['jobs']} jobs"
    if not queue["workers"]:
        return f"{jobs}, and no worker is known"
    workers = "1 worker" if queue["workers"] == 1 else f"{queue['workers']} workers"
    when = "" if queue["seconds"] is None else f": begins in about {show.duration(queue['seconds'])}"
    return f"{jobs} for {workers}{': begins at once' if queue['seconds'] == 0 else when}"


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
