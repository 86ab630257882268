"""The figures behind the verdicts: a table a section, from the medians of its rounds."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.core.report.markdown import table
from benchmarks.core.statistics import Spread, ratios
from benchmarks.service import streams
from benchmarks.service.curves import RAW, THIN, WHOLE
from benchmarks.service.keys import ONCE

Results = dict[str, Any]


def of_load(results: Results, section: str, title: str) -> list[str]:
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


def of_keys(results: Results, conditions: str) -> list[str]:
    names = {"posts": "POST /jobs", ONCE: "POST /jobs, Idempotency-Key", "aliases": "GET by alias"}
    return _beside(results, "keys", f"What keys cost: {conditions}", names, "of the rate without keys")


def of_peer_options(results: Results) -> list[str]:
    names = {"posts": "runs/create", "aliases": "registered-models/alias"}
    return _beside(results, "mlflow", "MLflow under other options", names, "of the rate as it is measured")


def _beside(results: Results, section: str, title: str, names: dict[str, str], beside: str) -> list[str]:
    """Rates of each call, and as a share of the first one's, round by round."""
    found = results.get(section)
    if not found:
        return []
    rows = [
        [
            f"{names[what]}: {who}",
            *(f"{_spread(rounds, field):{form}}" for field, form in (("rate", ",.0f"), ("p50", ".1f"), ("p99", ".1f"))),
            f"{ratios([each['rate'] for each in rounds], [each['rate'] for each in next(iter(of_call.values()))]):.2f}",
        ]
        for what, of_call in found.items()
        for who, rounds in of_call.items()
    ]
    return [f"### {title}", "", *table(["", "/s", "p50, ms", "p99, ms", beside], rows), ""]


def of_points(results: Results) -> list[str]:
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


def of_curves(results: Results) -> list[str]:
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


def of_streams(results: Results) -> list[str]:
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


def of_queue(results: Results) -> list[str]:
    found = results.get("queue")
    if not found:
        return []
    rows = [
        [name, f"{_spread(rounds, 'p50'):.1f}", f"{_spread(rounds, 'p99'):.1f}"]
        for name, rounds in found["pages"].items()
    ]
    shares = [
        [
            f"{keys} keys: {name}",
            ", ".join(str(count) for _, count in sorted(of_one["starts"].items())),
            f"{of_one['slowest']:.2f}",
            f"{sum(of_one['starts'].values()) / of_one['seconds']:.0f}",
        ]
        for keys, of_keys in found["shares"].items()
        for name, of_one in of_keys.items()
    ]
    title = f"### A queue of {found['length']:,} jobs: of two keys nine to one, of five six to one each"
    pages = table(["a page of 20, one client", "p50, ms", "p99, ms"], rows)
    started = table(["starts", "of the greedy key, of the others", "longest wait over FIFO's", "starts /s"], shares)
    return [title, "", *pages, "", *started, ""]


def _spread(rounds: list[dict[str, Any]], field: str) -> Spread:
    return Spread.of([each[field] for each in rounds])
