"""Ten thousand queued jobs of two keys, nine of one to one of the other: what a page of the list costs, and who starts;
and of five keys, six of one to one of each other: who starts.

A key's k-th job starts after at most k of each other key, and its place by age is at least k: with n keys no job waits
over n times as long as in one line by age.

The dispatcher is the service's own. In place of workers, RQ workers are registered and this process answers the
doorbells: it claims each job, as a worker would, and fails it at once. Starts are counted in the order of claims.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import redis
from rq import Queue, Worker
from rq.serializers import JSONSerializer
from sqlalchemy import insert

from app.store import leases
from app.store.ids import new_id
from app.store.jobs import JobRepository
from app.store.leases import Lease
from app.store.sessions import Database, now
from app.store.tables import JobRow, KeyRow, OutboxRow
from benchmarks.service.bench import EMBEDDED, LEASE_SECONDS, POSTGRES, Bench, spec
from benchmarks.service.load import Load, Request, run
from benchmarks.service.rounds import interleaved
from workshop.served import Service, service

GREEDY = "greedy"
KEYS = (2, 5)
SETTINGS = {"GRADSMITH_DISPATCH_INTERVAL_SECONDS": "0.02"}
WORKERS = 16
PATIENCE_SECONDS = 40.0  # a busy machine starts fewer
MIN_STARTS = 100


def measure(bench: Bench, rounds: int, seconds: float, length: int, starts: int) -> dict[str, Any]:
    """{"length", "pages": {name: [summary]}, "shares": {number of keys: {name: {"starts": {key: count}, "slowest",
    "seconds"}}}}

    pages: with the fewest keys; slowest: the largest of (place at which a job started) / (its place by age), both
    counted from 1.
    """
    found: dict[str, Any] = {"length": length, "shares": {}}
    for keys in KEYS:
        url = bench.postgres.url(f"queue-{keys}", "")
        with service(url, changes=SETTINGS) as first, service(None, changes=SETTINGS) as second:
            services = {POSTGRES: first, EMBEDDED: second}
            ages = {name: _fill(each.database, length, keys) for name, each in services.items()}
            if "pages" not in found:
                page = Request("GET", "/jobs?limit=20")
                pages = {name: partial(_page, Load(each.url, [page], 1, seconds)) for name, each in services.items()}
                found["pages"] = interleaved(rounds, pages)
            found["shares"][keys] = {name: _shares(each, ages[name], starts) for name, each in services.items()}
    return found


def _page(load: Load) -> dict[str, Any]:
    return run(load).summary([200])


def _fill(database: Database, length: int, keys: int) -> list[tuple[str, str]]:
    """(job id, key) by age: of ten, one of each key but the greedy one, which has the others."""
    modest = [f"modest {number}" for number in range(1, keys)]
    names = {key: new_id("key") for key in (GREEDY, *modest)}
    with database.write() as session:
        for name in names.values():
            made = now(session)
            session.add(KeyRow(id=name, workspace="default", name=name, scopes=[], sha256="", created_at=made))
        session.flush()
        template = JobRepository(session).create(spec())
        values = {column.name: getattr(template, column.name) for column in JobRow.__table__.columns}
        ten = modest + [GREEDY] * (10 - len(modest))
        order = [(new_id("job"), ten[number % 10]) for number in range(length)]
        rows = [
            {**values, "id": job, "api_key": names[key], "queue_key": template.queue_key + number}
            for number, (job, key) in enumerate(order, 1)
        ]
        session.execute(insert(JobRow), rows)
        session.execute(
            insert(OutboxRow), [{"job": job, "attempt": 1, "created_at": template.created_at} for job, _ in order]
        )
        JobRepository(session).cancel(template.id)
    return order


def _shares(over: Service, order: list[tuple[str, str]], starts: int) -> dict[str, Any]:
    key_of = dict(order)
    age = {job: place for place, (job, _) in enumerate(order, 1)}
    began = time.monotonic()
    started: list[str] = []
    with _registered(over) as queue:
        while len(started) < starts and time.monotonic() - began < PATIENCE_SECONDS:
            doorbell = queue.pop_job_id() if queue.count else None
            if doorbell is None:
                time.sleep(0.002)
                continue
            lease = Lease(str(doorbell).rpartition("-")[0], 1, "bench")
            with over.database.write() as session:
                if leases.claim(session, lease, LEASE_SECONDS) is None:
                    continue
                leases.fail(session, lease, "the benchmark has no use for its result")
            if lease.job_id in key_of:
                started.append(lease.job_id)
    if len(started) < MIN_STARTS:
        raise RuntimeError(f"{len(started)} of {starts} jobs were started in {PATIENCE_SECONDS:.0f} s")
    counted = Counter(key_of[job] for job in started)
    waits = [place / age[job] for place, job in enumerate(started, 1)]
    # Whoever was not started waits at least for the next place: a job that is passed over shall not go unseen.
    passed_over = min((place for job, place in age.items() if job not in started), default=None)
    slowest = max(waits + ([(len(started) + 1) / passed_over] if passed_over else []))
    return {
        "starts": {key: counted[key] for key in set(key_of.values())},
        "slowest": slowest,
        "seconds": time.monotonic() - began,
    }


@contextmanager
def _registered(over: Service) -> Iterator[Queue]:
    """RQ's queue `cpu`, with workers in its register: the dispatcher rings two doorbells for each."""
    with redis.Redis.from_url(over.settings.resolved_redis_url) as connection:
        queue = Queue("cpu", connection=connection, serializer=JSONSerializer)
        workers = [Worker([queue], name=f"bench-{number}", connection=connection) for number in range(WORKERS)]
        for worker in workers:
            worker.register_birth()  # type: ignore[no-untyped-call]
        try:
            yield queue
        finally:
            for worker in workers:
                worker.register_death()  # type: ignore[no-untyped-call]
