"""Times a job from POST to its first training step: the whole service, one warm, idle worker, one small job at a time.

Measured by the client's clock from the call of `client.jobs.create` until the job's first `metrics` event, which tells
of a meta-step that is done, is (a) in the live stream of Redis and (b) with the client, over server-sent events. The
worker's spare process is waited for between two jobs: it imports torch meanwhile, and a busy worker is another matter.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import redis

import gradsmith
from app.settings import Settings
from app.streams.wire import stream_key
from gradsmith.events import MetricsEvent
from workshop.served import service

JOB: dict[str, Any] = {
    "family": "quadratic",
    "recipe": {"meta_steps": 40, "validation_interval": 40},
    "evaluate": False,  # the evaluation that follows a training would keep the worker busy
}
"""Small, and long enough that what is measured is not its end, which sends everything at once."""

START_SECONDS = 60.0
JOB_SECONDS = 60.0
READY = b" is ready for a job"


def measure(jobs: int) -> dict[str, Any]:
    """{"answered": [seconds], "running": ..., "recorded": ..., "received": ...}: one value a job, in order. `answered`
    is the POST alone; `running` is when the client hears that a worker has the job. A first job is not counted.

    Raises RuntimeError with the server's own words when it does not start or a job does not run.
    """
    found: dict[str, list[float]] = {"answered": [], "running": [], "recorded": [], "received": []}
    with service(None, workers=1) as over, gradsmith.Client(over.url) as client:
        (log,) = (over.settings.data_dir / "logs").glob("worker*.log")
        for number in range(jobs + 1):
            _wait_for_spare(log, number + 1)
            moments = _one_job(client, over.settings)
            if number:
                for name, seconds in moments.items():
                    found[name].append(seconds)
    return found


def _one_job(client: gradsmith.Client, settings: Settings) -> dict[str, float]:
    connection = redis.Redis.from_url(settings.resolved_redis_url, socket_timeout=JOB_SECONDS)
    started = time.perf_counter()
    job = client.jobs.create(**JOB, metadata={"made_by": "bench"})
    answered = time.perf_counter() - started
    recorded: list[float] = []
    watch = threading.Thread(target=_recorded, args=(connection, job.id, recorded), daemon=True)
    watch.start()
    heard: dict[str, float] = {}
    for event in client.jobs.stream(job):
        name = "received" if isinstance(event, MetricsEvent) else event.data.get("status", event.kind)
        heard.setdefault(name, time.perf_counter() - started)
    watch.join(2.0)  # the stream is at its end: what was recorded has been seen by now
    connection.close()
    job = client.jobs.get(job.id)
    if not {"running", "received"} <= heard.keys() or not recorded or job.status != "succeeded":
        raise RuntimeError(
            f"job {job.id} is {job.status} ({job.status_reason}); its first metrics were not seen in order"
        )
    moments = {"answered": answered, "recorded": recorded[0] - started}
    return moments | {name: heard[name] for name in ("running", "received")}


def _recorded(connection: redis.Redis, job_id: str, moments: list[float]) -> None:
    """Note when the first `metrics` entry is in the job's live stream."""
    key, last = stream_key(job_id), "0-0"
    deadline = time.monotonic() + JOB_SECONDS
    while time.monotonic() < deadline:
        try:
            answer: Any = connection.xread({key: last}, block=1000)
        except (redis.RedisError, ValueError, OSError):  # closed: the job ended without metrics
            return
        moment = time.perf_counter()
        for _, entries in answer or ():
            for entry_id, fields in entries:
                if fields[b"kind"] == b"metrics":
                    moments.append(moment)
                    return
                last = entry_id.decode()


def _wait_for_spare(log: Path, number: int) -> None:
    """Waits until the worker's `number`-th process has torch and the science in memory."""
    deadline = time.monotonic() + START_SECONDS
    while log.read_bytes().count(READY) < number if log.exists() else True:
        if time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-1000:] if log.exists() else ""
            raise RuntimeError(f"the worker has no spare process after {START_SECONDS:.0f} s. It said:\n{said}")
        time.sleep(0.02)
    time.sleep(0.3)  # idle: the job before has left
