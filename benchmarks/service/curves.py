"""Reading a curve of 100,000 points: whole, and thinned out to 1,000. One client, one request at a time, until the last
byte; parsing is the client's affair.

A round is a connection on which the same is asked for again and again, as a dashboard does, alike on both sides; the
median counts. MLflow's whole curve, several pages, is read once a round: it takes seconds.
"""

from __future__ import annotations

import http.client
import time
from functools import partial
from typing import Any

from benchmarks.service.bench import EMBEDDED, MLFLOW, POSTGRES, Bench
from benchmarks.service.load import Load, Request, run
from benchmarks.service.peer import Mlflow
from benchmarks.service.points import PAGE, ours, theirs
from benchmarks.service.rounds import interleaved

WHOLE, THIN, RAW = "whole", "thin", "raw"
THIN_POINTS = 1000
SECONDS = 1.0  # of a round


def measure(bench: Bench, rounds: int, count: int) -> dict[str, Any]:
    """{"count", "whole": {name: [{"milliseconds", "bytes"}]}, "thin": ..., "raw": ...}; raw: ours as plain columns"""
    jobs = {
        POSTGRES: (bench.over_postgres.url, ours(bench.over_postgres, count)["job"]),
        EMBEDDED: (bench.embedded.url, ours(bench.embedded, count)["job"]),
    }
    raw = {"Accept": "application/octet-stream"}
    whole, thin, columns = {}, {}, {}
    for name, (url, job) in jobs.items():
        path = f"/jobs/{job}/curve"
        whole[name] = partial(_again, url, path, {})
        thin[name] = partial(_again, url, f"{path}?max_points={THIN_POINTS}", {})
        columns[name] = partial(_again, url, path, raw)
    if (peer := bench.mlflow) is not None:
        run = theirs(peer, count)["run"]
        whole[MLFLOW] = partial(_whole, peer, run)
        sampled = f"/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval?run_ids={run}&metric_key=loss"
        thin[MLFLOW] = partial(_again, peer.url, f"{sampled}&max_results={THIN_POINTS}", {})
    return {
        "count": count,
        WHOLE: interleaved(rounds, whole),
        THIN: interleaved(rounds, thin),
        RAW: interleaved(rounds, columns),
    }


def _again(url: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
    measured = run(Load(url, [Request("GET", path, headers)], connections=1, seconds=SECONDS))
    answers = sum(measured.statuses.values())
    return {"milliseconds": measured.summary([200])["p50"], "bytes": measured.bytes_received // answers}


def _whole(peer: Mlflow, run: str) -> dict[str, Any]:
    """All pages, on one connection."""
    connection, token, milliseconds, size = peer.connection(), "", 0.0, 0
    path = f"/api/2.0/mlflow/metrics/get-history?run_id={run}&metric_key=loss&max_results={PAGE}"
    try:
        connection.connect()
        while True:
            found, content = _timed(connection, path + (f"&page_token={token}" if token else ""), {})
            milliseconds, size = milliseconds + found["milliseconds"], size + found["bytes"]
            _, mark, rest = content[-500:].partition(b'"next_page_token"')  # parsed whole it would cost them more
            token = rest.split(b'"')[1].decode() if mark else ""
            if not token:
                return {"milliseconds": milliseconds, "bytes": size}
    finally:
        connection.close()


def _timed(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> tuple[dict[str, Any], bytes]:
    began = time.perf_counter()
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    milliseconds = 1000 * (time.perf_counter() - began)
    if answer.status != http.HTTPStatus.OK:
        raise RuntimeError(f"GET {path} is answered with {answer.status}: {content[:300]!r}")
    return {"milliseconds": milliseconds, "bytes": len(content)}, content
