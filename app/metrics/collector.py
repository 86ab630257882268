"""What the stores say of the whole service, read when Prometheus asks and kept for a second."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import redis
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue
from rq.serializers import JSONSerializer
from rq.worker_registration import get_keys
from sqlalchemy.exc import SQLAlchemyError

from app.metrics.speed import speeds
from app.metrics.writable import try_write
from app.settings import Settings
from app.store import census
from app.store.errors import StoreError
from app.store.sessions import Database
from app.store.tables import JOB_STATUSES, SCHEMA_REVISION

KEPT_SECONDS = 1.0
DEVICES = ("cpu", "gpu")
_WORKER_PREFIX = "rq:worker:"


@dataclass(frozen=True)
class Fleet:
    """The workers that Redis knows: how many by (queue, state), what each trains by, and what Redis itself holds."""

    workers: dict[tuple[str, str], int]
    speeds: dict[str, float]
    waiting: dict[str, int]
    redis_bytes: int


def fleet(connection: redis.Redis) -> Fleet:
    """Raises redis.RedisError."""
    counted: Counter[tuple[str, str]] = Counter()
    names: set[str] = set()
    waiting = {}
    for device in DEVICES:
        queue = Queue(device, connection=connection, serializer=JSONSerializer)
        keys = sorted(get_keys(queue))
        with connection.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.hmget(key, "birth", "death", "state")
            states = pipeline.execute()
        for key, (birth, death, state) in zip(keys, states, strict=True):
            if birth and not death:
                counted[device, (state or b"unknown").decode()] += 1
                names.add(key.removeprefix(_WORKER_PREFIX))
        waiting[device] = int(queue.count)
    memory: Any = connection.info("memory")
    return Fleet(dict(counted), speeds(connection, sorted(names)), waiting, int(memory["used_memory"]))


@dataclass(eq=False)  # the registry keeps it by identity
class ServiceCollector(Collector):
    """A collector for a registry of prometheus_client. `collect` may be called from any thread."""

    settings: Settings
    database: Database
    version: str
    _connection: redis.Redis = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _kept: list[GaugeMetricFamily] = field(default_factory=list, init=False)
    _kept_until: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._connection = redis.Redis.from_url(
            self.settings.resolved_redis_url,
            socket_timeout=2,
            socket_connect_timeout=1,
            retry=Retry(NoBackoff(), 0),
        )

    def close(self) -> None:
        self._connection.close()

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing is asked of the stores when the registry takes this collector in."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        with self._lock:
            if time.monotonic() >= self._kept_until:
                self._kept = list(self._read())
                self._kept_until = time.monotonic() + KEPT_SECONDS
            yield from self._kept

    def _read(self) -> Iterator[GaugeMetricFamily]:
        info = _gauge("gradsmith_info", "What runs here; always 1.", "version", "schema")
        info.add_metric([self.version, SCHEMA_REVISION], 1)
        yield info
        up = _gauge("gradsmith_store_up", "Whether this process reaches the store; Redis: and may write.", "store")
        try:
            with self.database.read() as session:
                counted = census.take(session)
        except (StoreError, SQLAlchemyError):
            up.add_metric(["database"], 0)
        else:
            up.add_metric(["database"], 1)
            yield from _of_database(counted)
        try:
            found = fleet(self._connection)
            try_write(self._connection)
        except (redis.RedisError, OSError):
            up.add_metric(["redis"], 0)
        else:
            up.add_metric(["redis"], 1)
            yield from _of_redis(found)
        yield up
        if self.settings.data_dir.is_dir():
            free = _gauge("gradsmith_disk_free_bytes", "Free space where the data folder of this process is.")
            free.add_metric([], shutil.disk_usage(self.settings.data_dir).free)
            yield free


def _gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, labels=labels)


def _of_database(counted: census.Census) -> Iterator[GaugeMetricFamily]:
    jobs = _gauge("gradsmith_jobs", "Jobs by status; `queued` is the queue's depth.", "status", "device")
    waiting = _gauge(
        "gradsmith_queue_age_seconds",
        "How long the job that waits longest has been waiting; 0 when none does.",
        "device",
    )
    for device in DEVICES:
        for status in JOB_STATUSES:
            jobs.add_metric([status, device], counted.jobs.get((status, device), 0))
        waiting.add_metric([device], counted.waiting_seconds.get(device, 0.0))
    yield jobs
    yield waiting
    for name, about, value in (
        ("gradsmith_doorbells_waiting", "Jobs that the workers have not been told of yet.", counted.doorbells),
        ("gradsmith_jobs_overdue", "Running jobs whose lease ran out and that nobody took over.", counted.overdue),
        ("gradsmith_lost_workers", "Workers that jobs lost since they were made or retried.", counted.lost_workers),
        ("gradsmith_database_bytes", "Size of the database.", counted.bytes),
    ):
        family = _gauge(name, about)
        family.add_metric([], value)
        yield family


def _of_redis(found: Fleet) -> Iterator[GaugeMetricFamily]:
    workers = _gauge("gradsmith_workers", "Live workers by queue and state (busy, idle).", "queue", "state")
    doorbells = _gauge("gradsmith_doorbells_out", "Jobs that were announced and that no worker has taken.", "queue")
    for device in DEVICES:
        for state in sorted({"busy", "idle"} | {state for queue, state in found.workers if queue == device}):
            workers.add_metric([device, state], found.workers.get((device, state), 0))
        doorbells.add_metric([device], found.waiting[device])
    yield workers
    yield doorbells
    speed = _gauge("gradsmith_worker_meta_steps_per_second", "Of each worker that trains just now.", "worker")
    for worker, value in found.speeds.items():
        speed.add_metric([worker], value)
    yield speed
    memory = _gauge("gradsmith_redis_bytes", "Memory that Redis uses.")
    memory.add_metric([], found.redis_bytes)
    yield memory
