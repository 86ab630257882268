"""SIGTERM to a server with a live job: its streams end with a hint, and whoever follows loses nothing."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.host.server import bind, url_of
from app.host.supervise import API_GRACE_SECONDS
from app.host.tether import tethered
from app.settings import Settings
from app.store.sessions import Database
from gradsmith import Client
from gradsmith.events import Event, MetricsEvent
from tests.workers.harness import environment, wait_for
from workshop.working import Worker

pytestmark = pytest.mark.service


@contextmanager
def api(settings: Settings, listener: socket.socket, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            tethered([sys.executable, "-P", "-m", "app.host.server", "--fd", str(listener.fileno())]),
            env=environment(settings) | {"GRADSMITH_PORT": str(listener.getsockname()[1])},
            pass_fds=(listener.fileno(),),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def raw_stream(url: str, job_id: str, said: list[str]) -> None:
    with httpx.Client(base_url=url, timeout=30) as client, client.stream("GET", f"/jobs/{job_id}/events") as stream:
        said.extend(stream.iter_lines())  # a stream that is cut off raises here


@pytest.mark.long
def test_streams_end_with_a_hint_in_seconds_and_clients_go_on_without_a_loss(
    settings: Settings, sqlite_database: Database, tmp_path: Path
) -> None:
    log = tmp_path / "api.log"
    listener = bind("127.0.0.1", 0)  # ours: clients wait in its queue while no server runs
    url = url_of(listener)
    heard: list[Event] = []
    said: list[str] = []
    stopping = threading.Event()

    def follow(client: Client, job_id: str) -> None:
        heard.extend(client.jobs.stream(job_id))

    def train(worker: Worker) -> None:
        for step in itertools.count(1):
            event = worker.metrics(step)
            worker.publish(event)
            worker.record(event)
            if stopping.wait(0.01):
                return

    with api(settings, listener, log) as first:
        job_id = httpx.post(f"{url}/jobs", json={"kind": "meta_train", "family": "quadratic"}, timeout=60).json()["id"]
        worker = Worker(settings, sqlite_database, job_id)
        threads = [
            threading.Thread(target=follow, args=(Client(url), job_id), daemon=True),
            threading.Thread(target=raw_stream, args=(url, job_id, said), daemon=True),
            threading.Thread(target=train, args=(worker,), daemon=True),
        ]
        for thread in threads:
            thread.start()
        wait_for(lambda: any("1-20" in line for line in list(said)) and len(heard) > 20, "both to be in the middle")
        idle = httpx.Client(base_url=url)
        idle.get("/healthz")
        asked = time.monotonic()
        os.kill(first.pid, signal.SIGTERM)
        assert first.wait(60) in (0, -signal.SIGTERM)
        took = time.monotonic() - asked
        idle.close()
    assert took < API_GRACE_SECONDS, f"{took:.1f} s: it waited for its streams"
    threads[1].join(60)
    # whole blocks up to the last, which is the hint
    *_, comment, retry, blank = said
    assert (comment, blank) == (": this server stops; come back with Last-Event-ID", "")
    assert 1000 <= int(retry.removeprefix("retry: ")) <= 3000
    missed = worker.sequence
    with api(settings, listener, log):
        wait_for(lambda: isinstance(heard[-1], MetricsEvent) and heard[-1].step[0] > missed + 20, "the client to go on")
        stopping.set()
        threads[2].join(60)
        worker.finish_training()
        threads[0].join(60)
        assert not threads[0].is_alive()
    worker.close()
    listener.close()
    steps = [step for event in heard if isinstance(event, MetricsEvent) for step in event.step]
    assert steps == list(range(1, worker.sequence)), "every point, once, in order"
    assert heard[-1].kind == "done"
    assert "Traceback" not in log.read_text()
    assert "timeout graceful shutdown exceeded" not in log.read_text()
