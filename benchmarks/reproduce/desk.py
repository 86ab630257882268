"""Jobs of a service, as `POST /jobs` takes them: found again after an interruption, and followed to their end.

A job carries a label with its identity, a digest. What was begun before is found by it: a finished job is not run
again, one that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import gradsmith
from app.host.tether import tethered
from benchmarks.core.environment import ROOT
from gradsmith.types import Job
from models.baselines import DEFAULT_TUNED
from models.families import FAMILIES
from workshop.served import service

LABEL = "reproduce"
POLL_SECONDS = 0.5
LINE_EVERY_SECONDS = 10.0

Tell = Callable[[str], None]


class Desk:
    """Posts jobs and waits for them. tell: prints a line; workers: how many jobs run at once"""

    def __init__(self, client: gradsmith.Client, tell: Tell, commit: str, workers: int = 1) -> None:
        self.client = client
        self.tell = tell
        self.workers = workers
        self._commit = commit

    def job(self, kind: str, body: Mapping[str, Any], name: str) -> Job:
        """The job with this body, posted now where there is none yet, or it failed or was cancelled."""
        label = identity(kind, body)
        for job in self.client.jobs.list(kind=kind, metadata={LABEL: label}, limit=100):
            if not job.finished or job.status == "succeeded":
                return job
        labels = {LABEL: label, "name": name[:100], "commit": self._commit}
        return self.client.jobs.create(kind, **body, metadata=labels)

    def cancel_all_but(self, bodies: Iterable[Mapping[str, Any]]) -> None:
        """Cancel trainings of ours that nobody asks for any more: variants that were renamed or changed. They would be
        in front of what is asked for."""
        wanted = {identity("meta_train", body) for body in bodies}
        for status in ("queued", "running"):
            for job in self.client.jobs.list(kind="meta_train", status=status, limit=100):
                if LABEL in job.metadata and job.metadata[LABEL] not in wanted:
                    self.client.jobs.cancel(job)
                    self.tell(f"{job.metadata['name']}: cancelled, for no experiment has it now")

    def followed(self, jobs: Sequence[tuple[str, Job]]) -> list[Job]:
        """All of them, ended; a line about those that run now and then. Jobs that failed are among them."""
        ended: dict[str, Job] = {}
        last = 0.0
        while True:
            running = []
            for name, job in jobs:
                if job.id not in ended:
                    now = self.client.jobs.get(job)
                    if now.finished:
                        ended[job.id] = now
                        self.tell(f"{name}: {now.status}{f' ({now.status_reason})' if now.status_reason else ''}")
                    elif now.status != "queued":
                        running.append(f"{name} {_how_far(now)}")
            if len(ended) == len({job.id for _, job in jobs}):
                return [ended[job.id] for _, job in jobs]
            if time.monotonic() - last >= LINE_EVERY_SECONDS:
                last = time.monotonic()
                self.tell(f"{len(ended)} of {len(jobs)} done; now {'; '.join(running) or 'waiting for a worker'}")
            time.sleep(POLL_SECONDS)


def identity(kind: str, body: Mapping[str, Any]) -> str:
    """What tells one job from another: its body, and what the family adds to it. Settings at their defaults do not
    count, so that a setting which is added later makes no other job of it."""
    family = FAMILIES[body["family"]].model_dump(
        mode="json", include={"tasks", "recipe", "evaluation"}, exclude_defaults=True
    )
    for name in ("baselines", "search"):  # of which every measurement names its own
        family.get("evaluation", {}).pop(name, None)
    plan = dict(body.get("evaluation", {}))
    if tuple(plan.get("baselines", ())) == DEFAULT_TUNED:
        body = {**body, "evaluation": {name: value for name, value in plan.items() if name != "baselines"}}
    told = json.dumps([kind, body, family], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:24]


def _how_far(job: Job) -> str:
    progress = job.progress
    eta = "" if progress.eta_seconds is None else f", {progress.eta_seconds:.0f} s left"
    return f"{progress.step}/{progress.total or '?'}{eta}"


@contextmanager
def desk(data: Path, workers: int, tell: Tell, commit: str, *, gpu: bool = False) -> Iterator[Desk]:
    """A service of our own on the data folder, with so many workers; gone when the block ends. Its jobs stay.

    gpu: whether its worker is one that takes jobs for a GPU
    """
    record = data / "server.json"
    record.unlink(missing_ok=True)  # of the service before, which would look like the one that starts
    with (
        service(None, workers=0 if gpu else workers, data=data, checkout=ROOT) as served,
        _gpu_worker(data) if gpu else nullcontext(),
        gradsmith.Client(served.url) as client,
    ):
        yield Desk(client, tell, commit, 1 if gpu else workers)


@contextmanager
def _gpu_worker(data: Path) -> Iterator[None]:
    """A worker for the queue `gpu`: those of `serve` work on `cpu`."""
    command = [sys.executable, "-m", "app.cli", "worker", "--queues", "gpu", "--data", str(data)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'sdk'}"}
    with (data / "gpu-worker.log").open("wb") as log:
        process = subprocess.Popen(tethered(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
