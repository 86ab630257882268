"""Points of a loss curve, from the writer's call until a GET returns all of them as JSON.

The writer's call is, of ours, what a worker's recorder does with a full chunk (`leases.record`, a transaction each);
of MLflow, `runs/log-batch` with as many metrics as it takes, from four connections at once, which is its best. A point
of ours has a gradient norm and the id of its event beside the loss.
"""

from __future__ import annotations

import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from app.store import leases
from app.store.events import JobEvent
from benchmarks.service.bench import EMBEDDED, MLFLOW, POSTGRES, Bench, metrics, running
from benchmarks.service.peer import BATCH, Mlflow, send
from benchmarks.service.rounds import interleaved
from workshop.served import Service

EVENT, CHUNK = 64, 4096  # points of a live event and of a stored chunk: the settings' defaults
WRITERS = 4
PAGE = 25_000  # points of a page of MLflow's: the most that it gives


def measure(bench: Bench, rounds: int, count: int, peer_count: int) -> dict[str, Any]:
    """{"servers": {name: [{"rate", "seconds", "written": seconds until the last call returned}]}}"""
    measures = {
        POSTGRES: partial(ours, bench.over_postgres, count),
        EMBEDDED: partial(ours, bench.embedded, count),
    }
    if (peer := bench.mlflow) is not None:
        measures[MLFLOW] = partial(theirs, peer, peer_count)
    return {"servers": interleaved(rounds, measures), "points": {"ours": count, "MLflow": peer_count}}


def ours(service: Service, count: int) -> dict[str, Any]:
    lease = running(service.database)
    chunks = _chunks(count)
    began = time.perf_counter()
    for chunk in chunks:
        with service.database.write() as session:
            leases.record(session, lease, chunk)
    written = time.perf_counter() - began
    found = len(json.loads(get(service.url, f"/jobs/{lease.job_id}/curve"))["step"])
    return _summary(found, count, written, time.perf_counter() - began) | {"job": lease.job_id}


def theirs(peer: Mlflow, count: int) -> dict[str, Any]:
    run = peer.run()
    batches = [
        [
            {"key": "loss", "value": 1.0 / step, "timestamp": 1_700_000_000_000 + step, "step": step}
            for step in range(first, min(first + BATCH, count + 1))
        ]
        for first in range(1, count + 1, BATCH)
    ]
    began = time.perf_counter()
    with ThreadPoolExecutor(WRITERS) as threads:
        list(threads.map(partial(_log, peer, run), [batches[number::WRITERS] for number in range(WRITERS)]))
    written = time.perf_counter() - began
    found = len(history(peer, run))
    return _summary(found, count, written, time.perf_counter() - began) | {"run": run}


def history(peer: Mlflow, run: str) -> list[Any]:
    """A run's whole curve, page by page."""
    connection, found, token = peer.connection(), [], ""
    try:
        while True:
            path = f"/api/2.0/mlflow/metrics/get-history?run_id={run}&metric_key=loss&max_results={PAGE}"
            page = send(connection, "GET", path + (f"&page_token={token}" if token else ""))
            found += page.get("metrics", [])
            token = page.get("next_page_token")
            if not token:
                return found
    finally:
        connection.close()


def get(url: str, path: str, accept: str = "application/json") -> bytes:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    try:
        connection.request("GET", path, headers={"Accept": accept})
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise RuntimeError(f"GET {path} is answered with {answer.status}: {content[:300]!r}")
    return content


def _log(peer: Mlflow, run: str, batches: list[Any]) -> None:
    connection = peer.connection()
    try:
        for batch in batches:
            send(connection, "POST", "/api/2.0/mlflow/runs/log-batch", run_id=run, metrics=batch)
    finally:
        connection.close()


def _chunks(count: int) -> list[list[JobEvent]]:
    """What a recorder holds when it stores: events of 64 points, 4,096 points together."""
    firsts = range(1, count + 1, EVENT)
    events = [metrics(first, min(EVENT, count + 1 - first), 1 + number) for number, first in enumerate(firsts)]
    per_chunk = CHUNK // EVENT
    return [events[first : first + per_chunk] for first in range(0, len(events), per_chunk)]


def _summary(found: int, count: int, written: float, seconds: float) -> dict[str, Any]:
    if found != count:
        raise RuntimeError(f"{count} points were written and {found} came back")
    return {"rate": count / seconds, "seconds": seconds, "written": written}
