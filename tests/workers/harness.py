"""Small jobs, and real processes to run them in."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from app.host.tether import tethered
from app.settings import Settings
from app.store import events
from app.store.events import JobEvent
from app.store.jobs import JobRepository
from app.store.sessions import Database
from app.store.tables import JobRow, OptimizerRow
from models.families import FAMILIES
from models.families.recipes import PAPER
from models.spec import (
    EvaluateSpec,
    EvaluationPlan,
    JobSpec,
    MetaTrainSpec,
    PreviewPlan,
    PreviewSpec,
    Recipe,
    Resources,
    overridden,
)

T = TypeVar("T")

PATIENCE_SECONDS = 180.0
"""How long to wait for what is to come: a busy machine takes half a minute for the imports of one process."""

QUICK = {
    "lease_seconds": 5.0,
    "lease_renewal_seconds": 0.5,
    "cancel_poll_seconds": 0.1,
    "dispatch_interval_seconds": 0.1,
    "reconcile_interval_seconds": 0.5,
    "retry_backoff_seconds": 0.05,
    "checkpoint_interval_seconds": 0.1,
    "stream_flush_seconds": 0.05,
    "curve_flush_seconds": 0.3,
}
PLAN: dict[str, Any] = {
    "test_tasks": 16, "tuning_tasks": 8, "horizon": 10, "bootstrap_samples": 100,
    "baselines": ["adam", "sgd"], "schedules": ["constant"], "untuned": ["dog"],
}  # fmt: skip


def training(meta_steps: int = 20, *, evaluate: bool = False, seed: int = 1, **recipe: Any) -> MetaTrainSpec:
    """A meta-training job of some milliseconds a meta-step."""
    family = FAMILIES["quadratic"]
    small = {"meta_steps": meta_steps, "tasks": 8, "validation_tasks": 8, "validation_interval": 10}
    small |= {"horizon": 10, "unroll_steps": 5} | recipe
    chosen: Recipe = overridden(PAPER["quadratic"], small)
    plan: EvaluationPlan = overridden(family.evaluation, PLAN)
    return MetaTrainSpec(
        family=family, seed=seed, recipe=chosen, evaluate=evaluate, evaluation=plan, resources=Resources()
    )


def evaluation(optimizer: str, training: Recipe | None = None, **plan: Any) -> EvaluateSpec:
    """training: the recipe of the optimizer, for a family tier"""
    family = FAMILIES["quadratic"]
    changed: EvaluationPlan = overridden(family.evaluation, PLAN | plan)
    return EvaluateSpec(
        optimizer=optimizer, family=family, seed=1, evaluation=changed, training=training, resources=Resources()
    )


def preview(family: str = "quadratic", **plan: Any) -> PreviewSpec:
    small = PreviewPlan(**({"horizon": 10, "tuning_tasks": 4, "bootstrap_samples": 100} | plan))
    return PreviewSpec(family=FAMILIES[family], seed=1, evaluation=small, resources=Resources())


def create(database: Database, spec: JobSpec) -> str:
    with database.write() as session:
        return JobRepository(session).create(spec).id


def job(database: Database, job_id: str) -> JobRow:
    with database.read() as session:
        return JobRepository(session).get(job_id)


def stored_events(database: Database, job_id: str) -> list[JobEvent]:
    found: list[JobEvent] = []
    position = events.START
    while True:
        with database.read() as session:
            replay = events.after(session, job_id, position)
        found += replay.events
        if not replay.more:
            return found
        position = found[-1].id


def optimizers(database: Database) -> list[OptimizerRow]:
    with database.read() as session:
        return list(session.query(OptimizerRow).all())


def wait_for(condition: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """The first true value of `condition()`; fails with `what` after `seconds`."""
    deadline, pause = time.monotonic() + seconds, 0.02
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(pause)
        pause = min(1.3 * pause, 0.1)  # to look costs as much as some things that are waited for
    return found


def wait_for_status(database: Database, job_id: str, *statuses: str, seconds: float = PATIENCE_SECONDS) -> JobRow:
    def reached() -> JobRow | None:
        row = job(database, job_id)
        return row if row.status in statuses else None

    try:
        return wait_for(reached, f"{job_id} to be {statuses}", seconds)
    except AssertionError:
        row = job(database, job_id)
        raise AssertionError(f"{job_id} is {row.status} ({row.status_reason}), not {statuses}") from None


def wait_for_step(database: Database, job_id: str, step: int, seconds: float = PATIENCE_SECONDS) -> None:
    wait_for(lambda: job(database, job_id).step >= step, f"{job_id} to reach step {step}", seconds)


@dataclass
class WorkerProcess:
    """A real `python -m workers.main`; it dies with pytest."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def children(self) -> list[int]:
        """The spare and the child that runs a job, if any."""
        return children_of(self.pid)

    def output(self) -> str:
        return self.log.read_text(errors="replace")


def environment(settings: Settings) -> dict[str, str]:
    """The environment that makes `Settings()` in another process equal to `settings`."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("GRADSMITH_")}
    for name, value in settings.model_dump(exclude={"database_url", "redis_url"}).items():
        if value is not None and value != ():
            ours[f"GRADSMITH_{name.upper()}"] = str(value)
    ours["DATABASE_URL"], ours["REDIS_URL"] = settings.resolved_database_url, settings.resolved_redis_url
    return ours


@contextmanager
def running_worker(settings: Settings, folder: Path, *arguments: str) -> Iterator[WorkerProcess]:
    log = folder / f"worker-{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            tethered([sys.executable, "-P", "-m", "workers.main", *arguments]),
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield WorkerProcess(process, log)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        print(log.read_text(errors="replace"))


def children_of(pid: int) -> list[int]:
    found = []
    for task in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = task.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(task.parent.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
