"""POST /jobs against MLflow's runs/create: what a client sends first. 16 clients; no worker takes the jobs."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from benchmarks.service.bench import EMBEDDED, FAMILY, MLFLOW, POSTGRES, Bench
from benchmarks.service.load import Load, Request, run
from benchmarks.service.peer import Mlflow
from benchmarks.service.rounds import interleaved

CLIENTS = 16


def measure(bench: Bench, rounds: int, seconds: float) -> dict[str, Any]:
    """{"servers": {name: [summary of a round]}}"""
    job = new_job()
    loads = {
        POSTGRES: Load(bench.over_postgres.url, [job], CLIENTS, seconds),
        EMBEDDED: Load(bench.embedded.url, [job], CLIENTS, seconds),
    }
    if (peer := bench.mlflow) is not None:
        loads[MLFLOW] = Load(peer.url, [new_run(peer)], CLIENTS, seconds)
    return {"servers": interleaved(rounds, {name: partial(_once, load) for name, load in loads.items()})}


def new_job() -> Request:
    body = {"kind": "meta_train", "family": FAMILY, "metadata": {"by": "bench"}}
    return Request("POST", "/jobs", body=json.dumps(body))


def new_run(peer: Mlflow) -> Request:
    content = {"experiment_id": peer.experiment, "start_time": 1, "tags": [{"key": "by", "value": "bench"}]}
    return Request("POST", "/api/2.0/mlflow/runs/create", body=json.dumps(content))


def _once(load: Load) -> dict[str, Any]:
    return run(load).summary([200, 202])
