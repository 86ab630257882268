"""What notebooks show of records: tables, and a curve as an inline picture. All text is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from gradsmith.own_tasks import is_own, own_evaluation, tasks_of
from gradsmith.progress import duration

if TYPE_CHECKING:
    from gradsmith.types import Curve, Job, Optimizer, Report

_WIDTH, _HEIGHT = 560, 200
_LEFT, _BOTTOM, _TOP = 70, 24, 10
_COLUMNS = 400  # of the picture, at most two points in each
_CELL = "text-align:left;padding:2px 10px 2px 0"
_COLOURS = {"succeeded": "#1a7f37", "failed": "#cf222e", "cancelled": "#9a6700", "running": "#0969da"}


def job(shown: Job) -> str:
    """A job: its status, how far it is, and what came of it."""
    rows = [
        ("status", _status(shown.status)),
        ("reason", escape(shown.status_reason or "")),
        ("progress", escape(_progress(shown))),
        ("optimizer", escape(shown.optimizer or "")),
        ("evaluation", escape(shown.evaluation or "")),
        ("labels", escape(", ".join(f"{name}={value}" for name, value in shown.metadata.items()))),
    ]
    return _fields(f"{shown.kind} of {shown.family}, {shown.id}", rows)


def optimizer(shown: Optimizer) -> str:
    """An optimizer: its scores and verdicts."""
    what = "a tuned baseline" if shown.tuned else "a learned schedule" if shown.stands_for else "learned"
    rows = [
        ("id", escape(shown.id)),
        ("what", what),
        ("aliases", escape(", ".join(shown.aliases))),
        ("validation score", _number(shown.validation_score)),
        ("labels", escape(", ".join(f"{name}={value}" for name, value in shown.tags.items()))),
        ("SHA-256", f"<code>{escape(shown.sha256)}</code>"),
    ]
    rows += [
        (f"evaluation {number}", escape(_verdict_of(each, shown))) for number, each in enumerate(shown.evaluations, 1)
    ]
    return _fields(shown.reference, rows)


def report(shown: Report) -> str:
    """An evaluation: the verdict, and each optimizer's mean losses."""
    told = "; ".join(f"{verdict} by {metric}" for metric, verdict in shown.verdict.items()) or "no verdict"
    rows = [
        [escape(name), *(_number(each.get(metric, {}).get("mean")) for metric in ("final", "area"))]
        for name, each in shown.optimizers.items()
    ]
    title = f"{shown.family}, {shown.horizon} steps, {shown.test_tasks} held-out tasks: {told}"
    return f"<div><b>{escape(title)}</b>{_table(('mean loss of', 'at the end', 'over the curve'), rows)}</div>"


def page(entries: Sequence[Any], has_more: bool) -> str:
    """A page of a list: a row an entry."""
    if not entries:
        return "<div>nothing</div>"
    first = type(entries[0]).__name__
    if first == "Job":
        columns: tuple[str, ...] = ("job", "kind", "family", "status", "done")
        rows = [
            [escape(each.id), escape(each.kind), escape(each.family), _status(each.status), escape(_progress(each))]
            for each in entries
        ]
    elif first == "Optimizer":
        columns = ("optimizer", "aliases", "validation score", "verdict")
        rows = [
            [escape(each.reference), escape(", ".join(each.aliases)), _number(each.validation_score),
             escape(_verdict(own_evaluation(each.evaluations, each.family, each.overrides) or {}))]
            for each in entries
        ]  # fmt: skip
    else:
        columns = (first.lower(),)
        rows = [[escape(repr(each))] for each in entries]
    more = "<div>more follow: iterate, or <code>.next_page()</code></div>" if has_more else ""
    return f"<div>{_table(columns, rows)}{more}</div>"


def curve(shown: Curve) -> str:
    """A loss curve as a picture: the loss as a line, validation as dots; logarithmic where all of it is above 0."""
    drawn = [(step, loss) for step, loss in zip(shown.step, shown.loss, strict=True) if math.isfinite(loss)]
    dots = [
        (step, value)
        for step, value in zip(shown.step, shown.validation, strict=True)
        if value is not None and math.isfinite(value)
    ]
    title = f"{escape(shown.job)}: {shown.total_points:,} points"
    if not drawn:
        return f"<div>{title}, none of them finite</div>"
    logarithmic = min(value for _, value in (*drawn, *dots)) > 0
    height = [math.log10(value) if logarithmic else value for _, value in (*drawn, *dots)]
    low, high = min(height), max(height)
    first, last = drawn[0][0], max(drawn[-1][0], drawn[0][0] + 1)

    def place(step: float, value: float) -> tuple[float, float]:
        up = ((math.log10(value) if logarithmic else value) - low) / ((high - low) or 1.0)
        across = (step - first) / (last - first)
        return _LEFT + across * (_WIDTH - _LEFT - 8), _HEIGHT - _BOTTOM - up * (_HEIGHT - _BOTTOM - _TOP)

    line = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in _thinned(drawn))
    circles = "".join(
        '<circle cx="{:.1f}" cy="{:.1f}" r="2.5" fill="#bc4c00"/>'.format(*place(*point)) for point in _thinned(dots)
    )
    ends = [(10**value if logarithmic else value) for value in (low, high)]
    texts = (
        f'<text x="{_LEFT - 6}" y="{_HEIGHT - _BOTTOM}" text-anchor="end">{_number(ends[0])}</text>'
        f'<text x="{_LEFT - 6}" y="{_TOP + 8}" text-anchor="end">{_number(ends[1])}</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}">step {first:,}</text>'
        f'<text x="{_WIDTH - 8}" y="{_HEIGHT - 6}" text-anchor="end">{last:,}</text>'
    )
    scale = "logarithmic" if logarithmic else "linear"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" fill="currentColor" '
        f'font-family="sans-serif" font-size="11"><title>{title}, {scale}; dots: validation</title>'
        f'<polyline points="{line}" fill="none" stroke="#0969da" stroke-width="1.3"/>{circles}{texts}</svg>'
    )


def bar(shown: Job, seconds: float) -> str:
    """How far a job is. seconds: since waiting began"""
    step, total = shown.progress.step, shown.progress.total
    share = 1.0 if shown.status == "succeeded" else min(step / total, 1.0) if total else 0.0
    left = shown.progress.eta_seconds
    told = [_progress(shown), shown.status, duration(seconds), f"{duration(left)} left" if left is not None else ""]
    text = escape("  ".join(part for part in told if part))
    return (
        f'<div style="font-family:monospace">{escape(shown.family)} {escape(shown.kind)} '
        f'<progress value="{share:.4f}" max="1"></progress> {share:.0%} {text}</div>'
    )


def _thinned(points: Sequence[tuple[int, float]]) -> Iterable[tuple[int, float]]:
    """At most two points for each column of the picture, its lowest and its highest, so that spikes stay."""
    if len(points) <= 2 * _COLUMNS:
        return points
    kept = []
    for column in range(_COLUMNS):
        part = points[column * len(points) // _COLUMNS : (column + 1) * len(points) // _COLUMNS]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept += sorted(ends)
    return kept


def _fields(title: str, rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(
        f'<tr><th style="{_CELL}">{escape(name)}</th><td style="{_CELL}">{value}</td></tr>'
        for name, value in rows
        if value
    )
    return f"<div><b>{escape(title)}</b><table>{cells}</table></div>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells, which are HTML already."""
    head = "".join(f'<th style="{_CELL}">{escape(name)}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in row) + "</tr>" for row in rows
    )  # fmt: skip
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _status(status: str) -> str:
    colour = _COLOURS.get(status)
    return escape(status) if colour is None else f'<span style="color:{colour}">{escape(status)}</span>'


def _progress(shown: Job) -> str:
    return f"{shown.progress.step}/{shown.progress.total}" if shown.progress.total else ""


def _verdict_of(evaluation: Mapping[str, Any], of: Optimizer) -> str:
    """One of an optimizer's evaluations, with its tasks where they are not those of the optimizer's family."""
    verdict = _verdict(evaluation)
    own = is_own(evaluation, of.family, of.overrides)
    return verdict if own else f"on {tasks_of(evaluation)}: {verdict}"


def _verdict(evaluation: Mapping[str, Any]) -> str:
    verdict = evaluation.get("verdict")
    return ", ".join(f"{words} {name}" for name, words in verdict.items()) if isinstance(verdict, dict) else ""


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else ""
