"""Measures live streams from a worker to 200 clients, on an API process with a pool of 5 connections.

Twenty jobs tell what their losses are five times a second, 64 points an event, live (Redis) and every two seconds also
durable, as workers do; ten clients watch each. The first loss of an event is the moment at which it was published, by
the clock that all processes of a machine share. Then again with one client more, which sends its request and never
reads an answer: its job tells ten times as much.

`python -m benchmarks.service.streams` is the process of the clients: it reads {"url", "paths", "seconds", "deaf":
path or null} and answers with {"milliseconds": [...], "events": count, "open": streams that were open to the end}.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from app.store import leases
from app.store.curve_format import Points
from app.store.events import EventId, JobEvent
from app.streams import Publisher
from benchmarks.core.environment import ROOT
from benchmarks.service.bench import EMBEDDED, POSTGRES, Bench, running
from benchmarks.service.rounds import interleaved
from workshop.served import Service, service

JOBS, CLIENTS_EACH, EVENTS_PER_SECOND, POINTS = 20, 10, 5, 64
LOUD_EVENTS_PER_SECOND = 50  # of the job that the deaf client watches: 5 KB each fill what lies between
STORE_SECONDS = 2.0
CONNECTIONS = 5
SETTLE_SECONDS = 1.5  # once every client has had an event: what a connection costs at first is not counted
CONNECT_SECONDS = 20.0


def measure(bench: Bench, rounds: int, seconds: float) -> dict[str, Any]:
    """{"servers": {name: [{"p50", "p99", "worst", "events", "rate", "milliseconds"}]}}; names end in ", one deaf"."""
    found: dict[str, Any] = {}
    pools = {"GRADSMITH_DATABASE_CONNECTIONS": str(CONNECTIONS)}
    url = bench.postgres.url("streams", "")
    with service(url, changes=pools) as over_postgres, service(None, changes=pools) as embedded:
        measures = {}
        for name, running_service in ((POSTGRES, over_postgres), (EMBEDDED, embedded)):
            for deaf in (False, True):
                label = f"{name}{', one deaf' if deaf else ''}"
                measures[label] = partial(_once, running_service, seconds, deaf=deaf)
        found["servers"] = interleaved(rounds, measures)
    return found | {"streams": JOBS * CLIENTS_EACH}


def _once(over: Service, seconds: float, *, deaf: bool) -> dict[str, Any]:
    workers = [_Worker(over, EVENTS_PER_SECOND) for _ in range(JOBS)]
    loud = _Worker(over, LOUD_EVENTS_PER_SECOND)
    paths = [f"/jobs/{worker.lease.job_id}/events" for worker in workers for _ in range(CLIENTS_EACH)]
    loud_path = f"/jobs/{loud.lease.job_id}/events"
    given = {"url": over.url, "paths": paths, "seconds": seconds, "deaf": loud_path if deaf else None}
    stop = threading.Event()
    telling = threading.Thread(target=_tell, args=([*workers, loud], stop))
    telling.start()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.service.streams"],
            input=json.dumps(given), capture_output=True, text=True, cwd=ROOT, check=False, timeout=seconds + 60,
        )  # fmt: skip
    finally:
        stop.set()
        telling.join()
        for worker in [*workers, loud]:
            worker.end()
    if done.returncode != 0:
        raise RuntimeError(f"the clients failed: {done.stderr[-1000:]}")
    said = json.loads(done.stdout)
    if said["open"] != len(paths) or not said["milliseconds"]:
        raise RuntimeError(f"{said['open']} of {len(paths)} streams were open to the end, {said['events']} events came")
    taken = sorted(said["milliseconds"])
    return {
        "p50": taken[len(taken) // 2],
        "p99": taken[int(0.99 * len(taken))],
        "worst": taken[-1],
        "events": len(taken),
        "rate": len(taken) / seconds,
    }


class _Worker:
    """One running job, told by the thread of `_tell`."""

    def __init__(self, over: Service, events_per_second: int) -> None:
        self.lease = running(over.database)
        self._database = over.database
        self._publisher = Publisher(over.settings, self.lease.job_id)
        self._pending: list[JobEvent] = []
        self._sequence = 0
        self.pause = 1 / events_per_second
        self.due = time.perf_counter()
        self.store_at = self.due + STORE_SECONDS

    def tell(self) -> None:
        self._sequence += 1
        first = 1 + POINTS * (self._sequence - 1)
        losses = [time.perf_counter()] + [0.123456789012345] * (POINTS - 1)
        steps = list(range(first, first + POINTS))
        points = Points(steps, losses, [1.5] * POINTS, [None] * POINTS, [0.003] * POINTS, [False] * POINTS)
        event = JobEvent.metrics(EventId(1, self._sequence), points)
        self._publisher.publish(event)
        self._pending.append(event)
        self.due += self.pause

    def store(self) -> None:
        with self._database.write() as session:
            leases.record(session, self.lease, self._pending)
        self._pending = []
        self.store_at += STORE_SECONDS

    def end(self) -> None:
        self._publisher.close()
        with self._database.write() as session:
            leases.fail(session, self.lease, "the benchmark is over", EventId(1, self._sequence + 1))


def _tell(workers: list[_Worker], stop: threading.Event) -> None:
    """Their moments are spread, as those of workers that know nothing of each other."""
    for number, worker in enumerate(workers):
        worker.due += worker.pause * number / len(workers)
        worker.store_at += STORE_SECONDS * number / len(workers)
    while not stop.is_set():
        worker = min(workers, key=lambda each: each.due)
        if (wait := worker.due - time.perf_counter()) > 0:
            time.sleep(wait)
        worker.tell()
        if time.perf_counter() >= worker.store_at:
            worker.store()


# --- the clients' process -----------------------------------------------------------------------------------------

_FIRST_LOSS = re.compile(rb'"loss":\[([0-9.]+)')


def main() -> int:
    import uvloop

    given = json.loads(sys.stdin.read())
    address = urlsplit(given["url"])
    taken: list[tuple[float, float]] = []  # (when it came, seconds it took)
    served: set[int] = set()
    closed = 0

    class Client(asyncio.Protocol):
        def __init__(self, path: str) -> None:
            self.request = f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nAccept: text/event-stream\r\n\r\n"
            self.rest = b""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.write(self.request.encode())  # type: ignore[attr-defined]

        def data_received(self, data: bytes) -> None:
            now = time.perf_counter()
            *whole, self.rest = (self.rest + data).split(b"\n\n")
            for event in whole:
                found = _FIRST_LOSS.search(event)
                if found:
                    served.add(id(self))
                    taken.append((now, now - float(found[1])))

        def connection_lost(self, _error: Exception | None) -> None:
            nonlocal closed
            closed += 1

    async def everything() -> None:
        loop = asyncio.get_running_loop()
        for path in given["paths"]:
            await loop.create_connection(partial(Client, path), address.hostname or "", address.port or 80)
        deaf = _deaf(address.hostname or "", address.port or 80, given["deaf"]) if given["deaf"] else None
        async with asyncio.timeout(CONNECT_SECONDS):
            while len(served) < len(given["paths"]):
                await asyncio.sleep(0.05)
        await asyncio.sleep(SETTLE_SECONDS)
        began = time.perf_counter()
        await asyncio.sleep(given["seconds"])
        counted = [1000 * each for moment, each in taken if moment >= began and moment - each >= began]
        open_streams = len(given["paths"]) - closed
        json.dump({"milliseconds": counted, "events": len(taken), "open": open_streams}, sys.stdout)
        if deaf is not None:
            deaf.close()

    uvloop.run(everything())
    return 0


def _deaf(host: str, port: int, path: str) -> socket.socket:
    """A client that asks and never reads; with the smallest buffer, so that the server notices soon."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: text/event-stream\r\n\r\n".encode())
    return connection


if __name__ == "__main__":
    sys.exit(main())
