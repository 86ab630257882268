"""What the rows share: servers that start when first asked for and stay until the end, finished work."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar

import numpy as np

from app.store import leases, outcomes
from app.store.curve_format import Points
from app.store.events import EventId, JobEvent
from app.store.jobs import JobRepository
from app.store.leases import Lease
from app.store.sessions import Database
from app.store.tables import JobRow
from benchmarks.core.environment import PeersUnavailable
from benchmarks.service.peer import Mlflow, MlflowError, mlflow
from benchmarks.service.stores import Postgres, postgres
from models.families import FAMILIES
from models.spec import MetaTrainSpec, Resources
from workshop.served import Service, service

POSTGRES, EMBEDDED, MLFLOW = "ours, Postgres + Redis", "ours, embedded", "MLflow"
API_PROCESSES = 2  # over Postgres
FAMILY = "quadratic"
WEIGHTS_BYTES = 24_000  # of a rule of the usual size
LEASE_SECONDS = 3600.0

T = TypeVar("T")


class Bench(ExitStack):
    """`mlflow` is None where it cannot be had; `missing` says why."""

    def __init__(self, *, peer: bool) -> None:
        super().__init__()
        self._peer = peer
        self._made: dict[str, Any] = {}
        self.missing = "" if peer else "left out by --no-peer"

    @property
    def postgres(self) -> Postgres:
        return self._once("postgres", lambda: self.enter_context(postgres()))

    @property
    def over_postgres(self) -> Service:
        """A service on Postgres, with as many API processes as MLflow has workers."""
        start = lambda: self.enter_context(  # noqa: E731
            service(self.postgres.url("gradsmith", ""), api_processes=API_PROCESSES)
        )
        return self._once("over_postgres", start)

    @property
    def embedded(self) -> Service:
        """A service as `serve` starts it: one API process, SQLite, the bundled Valkey."""
        return self._once("embedded", lambda: self.enter_context(service(None)))

    @property
    def mlflow(self) -> Mlflow | None:
        return self._once("mlflow", self._start_mlflow)

    def versions(self) -> dict[str, str]:
        """Versions of the servers that have been started."""
        found = {}
        if "postgres" in self._made:
            found["Postgres"] = self.postgres.version
        if self._made.get("mlflow") is not None:
            found["MLflow"] = self._made["mlflow"].version
        return found

    def _start_mlflow(self) -> Mlflow | None:
        if not self._peer:
            return None
        try:
            return self.enter_context(mlflow(self.postgres.url("mlflow", "psycopg2")))
        except (PeersUnavailable, MlflowError) as error:
            self.missing = str(error)
            print(f"  MLflow is left out: {error}", flush=True)
            return None

    def _once(self, name: str, make: Callable[[], T]) -> T:
        if name not in self._made:
            self._made[name] = make()
        found: T = self._made[name]
        return found


def spec() -> MetaTrainSpec:
    family = FAMILIES[FAMILY]
    return MetaTrainSpec(
        family=family, seed=0, recipe=family.recipe, evaluate=False, evaluation=family.evaluation, resources=Resources()
    )


def running(database: Database) -> Lease:
    """A new job in the hands of a worker that is us."""
    with database.write() as session:
        job: JobRow = JobRepository(session).create(spec())
        lease = Lease(job.id, 1, "bench")
        assert leases.claim(session, lease, LEASE_SECONDS) is not None
    return lease


def finished(database: Database, lease: Lease, sequence: int) -> None:
    """The job succeeds: its optimizer is the newest of the family."""
    with database.write() as session:
        outcomes.finish_training(
            session, lease, EventId(1, sequence), weights=os.urandom(WEIGHTS_BYTES), validation_score=1.0, card={}
        )


def points(first: int, count: int) -> Points:
    """Steps first, first+1, ... of a noisy loss that falls."""
    steps = np.arange(first, first + count)
    noise = np.random.default_rng(first)
    loss = 10.0 / np.sqrt(steps) + noise.normal(0.0, 0.1, count)
    norms = noise.lognormal(0.0, 1.0, count)
    validation = [float(value) if step % 50 == 0 else None for step, value in zip(steps, loss, strict=True)]
    return Points(steps.tolist(), loss.tolist(), norms.tolist(), validation, [0.003] * count, [False] * count)


def metrics(first: int, count: int, sequence: int) -> JobEvent:
    return JobEvent.metrics(EventId(1, sequence), points(first, count))
