"""What was to be shown, held against what was measured: every verdict compares a median of rounds with its target,
every ratio is taken round by round."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from benchmarks.core.report.markdown import table
from benchmarks.core.report.verdicts import Verdict
from benchmarks.core.statistics import ratios
from benchmarks.service.bench import EMBEDDED, MLFLOW, POSTGRES
from benchmarks.service.curves import THIN, WHOLE
from benchmarks.service.queue import KEYS

OURS = (POSTGRES, EMBEDDED)

Results = dict[str, Any]


def verdicts(results: Results) -> Iterator[Verdict]:
    """The issue's table."""
    yield _least("POST /jobs, Postgres, 16 clients", results, "posts", POSTGRES, "rate", 400, "/s")
    yield _most("POST /jobs, Postgres, p99", results, "posts", POSTGRES, "p99", 150, "ms")
    yield _times("POST /jobs, Postgres, against MLflow's runs/create", results, "posts", POSTGRES, 3)
    yield _least("POST /jobs, embedded, 16 clients", results, "posts", EMBEDDED, "rate", 150, "/s")
    yield _least("GET by alias, Postgres, 16 clients", results, "aliases", POSTGRES, "rate", 1500, "/s")
    yield _most("GET by alias, Postgres, p99", results, "aliases", POSTGRES, "p99", 30, "ms")
    yield _times("GET by alias, Postgres, against MLflow's", results, "aliases", POSTGRES, 7)
    for name in OURS:
        yield _least(f"points until readable, {name}", results, "points", name, "rate", 200_000, "/s")
        yield _times(f"points until readable, {name}, against MLflow", results, "points", name, 20)
    for what, limit in ((WHOLE, 50), (THIN, 20)):
        said = "100,000-point curve, whole" if what == WHOLE else "1,000 points of it"
        for name in OURS:
            yield _most(f"{said}, {name}", results, "curves", name, "milliseconds", limit, "ms", what)
        yield _times(f"{said}, Postgres, against MLflow", results, "curves", POSTGRES, 50, what)
    for name in OURS:
        yield _most(f"worker to SSE client, 200 streams, p99, {name}", results, "streams", name, "p99", 300, "ms")
        deaf = f"{name}, one deaf"
        yield _most(f"the same with a client that never reads, {name}", results, "streams", deaf, "p99", 300, "ms")
    for name in OURS:
        yield _most(f"list page over 10,000 queued jobs, {name}", results, "queue", name, "p50", 20, "ms", "pages")
        for count in KEYS:
            yield from _fairness(results, name, count)
    for name in results.get("small", {}).get("servers", {"small answers": None}):
        yield _most(f"two API processes, {name}, p50", results, "small", name, "p50", 5, "ms")


def _least(what: str, results: Results, section: str, name: str, field: str, target: float, unit: str) -> Verdict:
    found = _values(results, section, name, field)
    return Verdict(what, target, None, median(found) if found else None, unit, note=_range(found))


def _most(
    what: str, results: Results, section: str, name: str, field: str, target: float, unit: str, part: str = "servers"
) -> Verdict:
    found = _values(results, section, name, field, part)
    return Verdict(what, target, None, median(found) if found else None, unit, more_is_better=False, note=_range(found))


def _times(what: str, results: Results, section: str, name: str, target: float, part: str = "servers") -> Verdict:
    """How many times as fast as MLflow."""
    field = "rate" if part == "servers" else "milliseconds"
    ours, theirs = _values(results, section, name, field, part), _values(results, section, MLFLOW, field, part)
    if not ours or not theirs:
        return Verdict(what, target, None, None)
    spread = ratios(ours, theirs) if field == "rate" else ratios(theirs, ours)
    return Verdict(what, target, None, spread.median, note=f"{spread.low:.1f}-{spread.high:.1f}")


def _fairness(results: Results, name: str, keys: int) -> Iterator[Verdict]:
    """The target for two keys; for more, the bound that follows from equal shares: as many times as keys."""
    shares, slowest = f"a key's share of starts off equal, {keys} keys", f"wait over FIFO's, worst job, {keys} keys"
    found = results.get("queue", {}).get("shares", {}).get(str(keys), {}).get(name)
    off = note = None
    if found is not None:
        starts = found["starts"].values()
        equal = sum(starts) / keys
        off = 100 * max(abs(count - equal) for count in starts) / equal
        note = f"{min(starts)} to {max(starts)} starts"
    yield Verdict(f"{shares}, {name}", 10, None, off, "%", more_is_better=False, note=note or "")
    measured = None if found is None else found["slowest"]
    yield Verdict(f"{slowest}, {name}", keys, None, measured, more_is_better=False)


def lines(results: Results, *, partial: bool) -> list[str]:
    """partial: some sections were asked for, and the rows of the others are left out."""
    rows = []
    for verdict in verdicts(results):
        if partial and verdict.measured is None:
            continue
        measured = "-" if verdict.measured is None else _number(verdict, verdict.measured)
        sign = "" if verdict.more_is_better else "<= "
        rows.append([verdict.what, sign + _number(verdict, verdict.at_least), measured, verdict.note, verdict.said])
    if not rows:
        return []
    return ["### What was to be shown", "", *table(["", "target", "measured", "range", "verdict"], rows), ""]


def _number(verdict: Verdict, value: float) -> str:
    unit = verdict.unit if verdict.unit == "x" else f" {verdict.unit}"
    return (f"{value:,.0f}" if value >= 100 else f"{value:.3g}") + unit


def _values(results: Results, section: str, name: str, field: str, part: str = "servers") -> list[float]:
    rounds = results.get(section, {}).get(part, {}).get(name, [])
    return [each[field] for each in rounds]


def _range(values: list[float]) -> str:
    if not values:
        return ""
    low, high = min(values), max(values)
    return f"{low:,.0f}-{high:,.0f}" if high >= 100 else f"{low:.3g}-{high:.3g}"
