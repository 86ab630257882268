"""What the report of `./run bench service` says of itself, and that its verdicts on the queue can be missed."""

from __future__ import annotations

from typing import Any

from benchmarks.service import report, tables, verdicts
from benchmarks.service.bench import POSTGRES


def queue(keys: int, starts: list[int], slowest: float) -> dict[str, Any]:
    shares = {POSTGRES: {"starts": dict(zip("abcde", starts, strict=False)), "slowest": slowest, "seconds": 2.0}}
    pages = {POSTGRES: [{"p50": 4.0, "p99": 9.0}]}
    return {"queue": {"length": 10_000, "pages": pages, "shares": {str(keys): shares}}}


def said(results: dict[str, Any], what: str) -> list[str]:
    return [
        each.said for each in verdicts.verdicts(results) if each.what.startswith(what) and each.measured is not None
    ]


def test_no_job_waits_over_as_many_times_as_there_are_keys():
    assert said(queue(2, [250, 250], 1.9), "wait over FIFO's, worst job, 2 keys") == ["reached"]
    assert said(queue(2, [250, 250], 2.1), "wait over FIFO's, worst job, 2 keys") == ["NOT REACHED"]
    assert said(queue(5, [100] * 5, 4.9), "wait over FIFO's, worst job, 5 keys") == ["reached"]
    assert said(queue(5, [100] * 5, 5.1), "wait over FIFO's, worst job, 5 keys") == ["NOT REACHED"]


def test_a_key_that_is_never_served_is_seen():
    equal, starved = queue(5, [100] * 5, 1.0), queue(5, [125, 125, 125, 125, 0], 1.0)
    assert said(equal, "a key's share of starts off equal, 5 keys") == ["reached"]
    assert said(starved, "a key's share of starts off equal, 5 keys") == ["NOT REACHED"]


def test_rows_that_were_not_asked_for_are_left_out():
    assert len(verdicts.lines(queue(2, [250, 250], 1.9), partial=True)) == 8  # three rows, four lines around them
    assert any("not measured" in line for line in verdicts.lines({}, partial=False))
    assert verdicts.lines({}, partial=True) == []


def test_what_keys_cost_is_a_ratio_taken_round_by_round():
    def rounds(*rates: float) -> list[dict[str, float]]:
        return [{"rate": rate, "p50": 1.0, "p99": 2.0} for rate in rates]

    found = {"keys": {"posts": {"no keys": rounds(100.0, 400.0), "one key": rounds(50.0, 100.0)}}}
    (row,) = [line for line in tables.of_keys(found, "16 clients") if "one key" in line]
    assert row.rstrip(" |").endswith("0.38 (0.25-0.50)")  # of the medians it would be 0.3


def test_the_report_says_how_both_sides_were_run():
    machine = dict.fromkeys(("processor", "cores", "system", "python", "commit", "load before"), "?")
    about = {
        "versions": {"MLflow": "3.17"},
        "rounds": 5,
        "seconds": 3.0,
        "stolen": None,
        "missing": "",
        "partial": False,
    }
    text = "\n".join(report.lines({"machine": machine, "about": about}, {}, "./run bench service", "2026-11-24"))
    for words in (
        "Ours without API keys", "No workers run", "--api-processes 2", "MLflow 3.17", "--workers 2", "leases.record",
        "no HTTP", "runs/log-batch", "synchronous_commit=on",
    ):  # fmt: skip
        assert words in text
