"""A database that an older version of the project made: its code is taken from git's history and runs real jobs."""

from __future__ import annotations

import io
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from workshop.served import ROOT, service

LIMIT_SECONDS = 300.0
# A checkpoint every few meta-steps, so that a job that is stopped goes on from one.
OFTEN = {"GRADSMITH_CHECKPOINT_INTERVAL_SECONDS": "0.01", "GRADSMITH_CURVE_FLUSH_SECONDS": "0.05"}
SMALL = {
    "meta_steps": 30, "tasks": 2, "validation_tasks": 2, "validation_interval": 10, "horizon": 10, "unroll_steps": 5,
    "forget_bias": 2.0, "rule": {"hidden_size": 4, "layers": 1},
}  # fmt: skip
PLAN = {"test_tasks": 4, "tuning_tasks": 2, "horizon": 10, "bootstrap_samples": 100}
TRAINING = {"kind": "meta_train", "family": "quadratic", "seed": 1, "recipe": SMALL, "evaluation": PLAN}


@dataclass(frozen=True)
class Left:
    """Ids of what the older version left: jobs that ended, and jobs that wait."""

    trained: str
    evaluated: str
    optimizer: str
    digits: str  # a second family's training, which succeeded
    preempted: str  # stopped in its middle, queued with a checkpoint
    queued: str
    queued_evaluation: str
    cancelled: str

    @property
    def waiting(self) -> tuple[str, ...]:
        return self.preempted, self.queued, self.queued_evaluation


def checkout(commit: str, folder: Path) -> Path:
    """The files of that commit. Raises CalledProcessError where git does not have it."""
    done = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def filled(version: Path, data: Path, database_url: str | None, made: str) -> Left:
    """Have the version in that folder train, evaluate, stop, cancel and queue jobs. made: their label."""

    def body(**changes: Any) -> dict[str, Any]:
        return TRAINING | {"metadata": {"made": made}} | changes

    with (
        service(database_url, workers=1, data=data, checkout=version, changes=OFTEN) as running,
        httpx.Client(base_url=running.url, timeout=60) as api,
    ):
        trained = _post(api, body(), {"Idempotency-Key": "kept-key"})
        digits = _post(api, body(family="digits-mlp", evaluate=False, recipe=SMALL | {"meta_steps": 2}))
        done = _until(api, trained, lambda job: job["status"] == "succeeded")
        evaluated = done["evaluation"]
        for job in (evaluated, digits):
            _until(api, job, lambda job: job["status"] == "succeeded")
        alias = "/families/quadratic/aliases/production"
        api.put(alias, json={"optimizer": done["optimizer"]}, headers={"If-None-Match": "*"}).raise_for_status()
        preempted = _post(api, body(recipe=SMALL | {"meta_steps": 600, "validation_interval": 200}, seed=2))
        _until(api, preempted, lambda job: job["progress"].get("step", 0) >= 30)
    with (
        service(database_url, workers=0, data=data, checkout=version) as running,
        httpx.Client(base_url=running.url, timeout=60) as api,
    ):
        status = api.get(f"/jobs/{preempted}").json()["status"]
        assert status == "queued", f"the job that was stopped is {status}: it ended before the service did"
        queued = _post(api, body(seed=3))
        queued_evaluation = _post(
            api,
            {"kind": "evaluate", "optimizer": done["optimizer"], "evaluation": PLAN, "metadata": {"made": made}},
        )
        cancelled = _post(api, body(seed=4))
        api.post(f"/jobs/{cancelled}/cancel").raise_for_status()
    return Left(trained, evaluated, done["optimizer"], digits, preempted, queued, queued_evaluation, cancelled)


def _post(api: httpx.Client, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> str:
    answer = api.post("/jobs", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _until(api: httpx.Client, job_id: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        job: dict[str, Any] = api.get(f"/jobs/{job_id}").json()
        if reached(job):
            return job
        assert job["status"] in ("queued", "running"), f"{job_id} is {job['status']}: {job.get('status_reason')}"
        assert time.monotonic() < deadline, f"{job_id} is {job['status']} after {LIMIT_SECONDS:.0f} s"
        time.sleep(0.05)
