"""Small answers on connections that stay open, from two API processes: where TCP_NODELAY is missing each waits 40 ms
for the client's delayed acknowledgement."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.service.bench import POSTGRES, Bench, running
from benchmarks.service.load import Load, Request, run
from benchmarks.service.rounds import interleaved

CLIENTS = 4


def measure(bench: Bench, rounds: int, seconds: float) -> dict[str, Any]:
    """{"servers": {what was asked: [summary of a round]}}"""
    service = bench.over_postgres
    job = running(service.database).job_id
    loads = {
        f"{POSTGRES}: GET /healthz": Load(service.url, [Request("GET", "/healthz")], CLIENTS, seconds),
        f"{POSTGRES}: GET /jobs/{{id}}": Load(service.url, [Request("GET", f"/jobs/{job}")], CLIENTS, seconds),
    }
    return {"servers": interleaved(rounds, {name: partial(_once, load) for name, load in loads.items()})}


def _once(load: Load) -> dict[str, Any]:
    return run(load).summary([200])
