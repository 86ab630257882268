"""What commands print: tables for people, JSON for programs. rich is loaded where something is drawn."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
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
_VERDICTS = {"wins": "green", "ties": "yellow", "loses": "red"}
_STYLES = _VERDICTS | {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}


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


def say(text: str, *, err: bool = False, indent: str = "", style: str | None = None) -> None:
    """A sentence; on a terminal it is broken between words. indent: before further lines; style: of its first word"""
    shown = wrapped(text, err=err, indent=indent)
    style = None if "NO_COLOR" in os.environ else style
    first, blank, rest = shown.partition(" ")
    typer.echo(f"{typer.style(first, fg=style)}{blank}{rest}" if style else shown, err=err)


def wrapped(text: str, *, err: bool = False, indent: str = "") -> str:
    """The text broken between words, where it goes to a terminal."""
    if not (sys.stderr if err else sys.stdout).isatty():
        return text
    width = min(shutil.get_terminal_size().columns, _WIDE_ENOUGH)
    lines = (textwrap.fill(each, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)
             for each in text.split("\n"))  # fmt: skip
    return "\n".join(lines)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str, spare: Sequence[str] = (),
    right: Sequence[str] = (),
) -> None:  # fmt: skip
    """Rows under their columns, without those that no row fills. empty: what to say where there are none; spare:
    columns that a narrow terminal leaves out, the first one first; right: columns of numbers"""
    given = [tuple(row) for row in rows]
    if not given:
        return say(empty)
    names = [name for place, name in enumerate(columns) if place == 0 or any(row[place] for row in given)]
    for name in (None, *spare):
        names = [each for each in names if each != name]
        if not sys.stdout.isatty() or _width(columns, given, names) <= shutil.get_terminal_size().columns:
            break
    kept = [columns.index(name) for name in names]
    return _draw(names, [[row[place] for place in kept] for row in given], right)


def _width(columns: Sequence[str], rows: Sequence[Sequence[str]], names: Sequence[str]) -> int:
    widest = {name: max(len(name), *(len(row[place]) for row in rows)) for place, name in enumerate(columns)}
    return sum(widest[name] + 3 for name in names) - 3


def _draw(names: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for name in names:
        drawn.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    console().print(drawn)


def fields(pairs: Mapping[str, str]) -> None:
    """Names and values, one a line; a value that is too long for the terminal goes on below itself."""
    widest = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        say(f"{name:<{widest}}  {value}", indent=" " * (widest + 2))


def paragraph(text: str) -> None:
    """Sentences after an empty line."""
    typer.echo()
    say(text)


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


def flat(value: Any, path: str = "") -> dict[str, str]:
    """JSON by paths, as --set takes them: {"rule": {"kind": "mlp"}} is {"rule.kind": "mlp"}."""
    if not isinstance(value, dict) or not (value or not path):
        return {path: value if isinstance(value, str) else line(value)}
    found: dict[str, str] = {}
    for inner, each in value.items():
        found |= flat(each, f"{path}.{inner}" if path else inner)
    return found


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
    if min(len(finite), width) < 2:
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
        found = report.verdict[metric]
        say(f"{found} {words}: {told} {against.get('baseline', 'baselines')}{schedule}", indent="  ",
            style=_VERDICTS.get(found))  # fmt: skip
    if report.family_tier:
        say(_schedule(report.family_tier["schedule"]), indent="  ")
    typer.echo()
    sweeps = report.raw.get("tuning") or {}
    rows = [
        (name, *(_mean(each, key) for key in ("final", "area")), _tuned(sweeps.get(name, {})))
        for name, each in report.optimizers.items()
    ]
    names = ("mean loss of", "at the end", "over the curve", "tuned to")
    table(names, rows, empty="", right=names[1:3])


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
