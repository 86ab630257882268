"""What commands print: tables for people, JSON for programs. rich is loaded where something is drawn."""

from __future__ import annotations

import itertools
import json
import math
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from gradsmith.progress import duration as duration

if TYPE_CHECKING:
    from rich.console import Console

    from gradsmith.events import Event
    from gradsmith.types import Job, Report

_WIDE_ENOUGH = 100  # columns
_BARS = "▁▂▃▄▅▆▇█"
_STYLES = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}


def console() -> Console:
    """Where people look: colours on a terminal, plain text in a pipe, which is as wide as its longest line."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 200)


def as_json(value: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def line(value: Any) -> str:
    """JSON in one line, for streams of it."""
    return json.dumps(value, ensure_ascii=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Rows under their columns. empty: what to say where there are none"""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for row in rows:
        drawn.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    if drawn.row_count == 0:
        typer.echo(empty)
    else:
        console().print(drawn)


def fields(pairs: Mapping[str, str]) -> None:
    """Names and values, one a line."""
    widest = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        typer.echo(f"{name:<{widest}}  {value}")


def paragraph(text: str) -> None:
    """Sentences after an empty line, wrapped where a person reads them."""
    width = min(console().width, _WIDE_ENOUGH) if sys.stdout.isatty() else None
    typer.echo("\n" + (text if width is None else textwrap.fill(text, width)))


def event(said: Event) -> str:
    """One line of what a job said."""
    from gradsmith.events import CheckpointEvent, DoneEvent, LogEvent, ResumedEvent, StatusEvent

    match said:
        case LogEvent():
            return said.message if said.level == "info" else f"{said.level}: {said.message}"
        case StatusEvent():
            reason = f": {said.reason}" if said.reason else ""
            return f"{said.status}{reason}" if said.attempt < 2 else f"{said.status}, attempt {said.attempt}{reason}"
        case CheckpointEvent():
            return f"checkpoint at step {said.step}"
        case ResumedEvent():
            return f"resumed from step {said.from_step}"
        case DoneEvent():
            return f"{said.status}: {said.reason}" if said.reason else said.status
    told = ", ".join(f"{name} {value}" for name, value in said.data.items() if value not in (None, ""))
    return f"{said.kind.replace('_', ' ')}: {told}" if told else said.kind.replace("_", " ")


def name(job: str) -> str:
    """An id that fits: on a narrow terminal its end, which every command takes as well."""
    narrow = sys.stdout.isatty() and console().width < _WIDE_ENOUGH
    return job[-8:] if narrow else job


def age(moment: datetime | None) -> str:
    """How long ago: "12 s", "5 min", "3 h", "2 d"."""
    if moment is None:
        return ""
    return duration((datetime.now(UTC) - moment).total_seconds())


def took(job: Job) -> str:
    """How long a job has run."""
    if job.started_at is None:
        return ""
    end = job.finished_at or datetime.now(UTC)
    return duration((end - job.started_at).total_seconds())


def progress(job: Job) -> str:
    """The share of its steps; the place in the queue of one that waits."""
    if job.status == "queued":
        return "" if not job.queue_position else f"{job.queue_position} before it"
    return f"{100 * job.progress.step / job.progress.total:.0f} %" if job.progress.total else ""


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """A curve in one line, by its logarithm where all are positive; values that are not finite are left out."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    count = min(width, len(finite))
    edges = [len(finite) * place // count for place in range(count + 1)]
    chunks = [finite[start:end] for start, end in itertools.pairwise(edges)]
    means = [sum(chunk) / len(chunk) for chunk in chunks]
    heights = [math.log(mean) for mean in means] if min(means) > 0 else means
    low, span = min(heights), (max(heights) - min(heights)) or 1.0
    return "".join(_BARS[min(int((height - low) / span * len(_BARS)), len(_BARS) - 1)] for height in heights)


def verdict(report: Report) -> None:
    """What an evaluation found, in a few lines and a table."""
    best = report.comparisons.get("best_baseline", {})
    for metric, words in (("final", "at the end"), ("area", "over the whole curve")):
        if metric not in report.verdict:
            continue
        against = best.get(metric, {})
        low, high = against.get("ratio_interval") or (None, None)
        told = f"{number(against.get('ratio_of_means'))} [{number(low)}, {number(high)}] of the loss of tuned"
        schedule = f", {against['schedule']} rate" if against.get("schedule") else ""
        typer.echo(f"{report.verdict[metric]} {words}: {told} {against.get('baseline', 'baselines')}{schedule}")
    if report.family_tier:
        typer.echo(_schedule(report.family_tier["schedule"]))
    sweeps = report.raw.get("tuning") or {}
    rows = [
        (name, *(_mean(each, key) for key in ("final", "area")), _tuned(sweeps.get(name, {})))
        for name, each in report.optimizers.items()
    ]
    table(("mean loss of", "at the end", "over the curve", "tuned to"), rows, empty="")


def _schedule(found: Mapping[str, Any]) -> str:
    """Whether a learned schedule does as well as the optimizer, in a line."""
    against = found["fresh_tasks"]
    if against is None:
        return "no schedule was learned: all trainings of one diverged"
    low, high = against.get("ratio_interval") or (None, None)
    ratio = f"{number(against.get('ratio_of_means'))} [{number(low)}, {number(high)}]"
    told = f"{against['verdict']} against a learned schedule of {found['numbers']} numbers: {ratio} of its loss"
    return f"{told}; best takes the schedule" if found["best"] else told


def _mean(optimizer: Mapping[str, Any], criterion: str) -> str:
    """JSON has no infinity: a mean that is not there is that of a run which diverged."""
    return number(optimizer.get(criterion, {}).get("mean")) or "diverged"


def _tuned(sweep: Mapping[str, Any]) -> str:
    """The learning rate and schedule for the end, and those for the whole curve where they are others."""
    told = []
    for criterion in ("final", "area"):
        rate, schedule = (sweep.get(name, {}).get(criterion) for name in ("learning_rate", "schedule"))
        told.append(" ".join(part for part in (number(rate), schedule or "") if part))
    return " / ".join(dict.fromkeys(part for part in told if part))


def number(value: Any) -> str:
    """Four digits of a number; nothing of what is none."""
    return f"{value:.4g}" if isinstance(value, int | float) else ""
