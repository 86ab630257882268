"""Keys take turns, nobody saves up, and `queue_position` says what the dispatcher will do."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from app.store import leases, outbox, queue
from app.store.errors import DatabaseBusy
from app.store.ids import new_id
from app.store.jobs import JobRepository
from app.store.leases import Lease
from app.store.queue import Queues
from app.store.sessions import Database, now
from app.store.shares import shares
from app.store.tables import JobRow, KeyRow, OutboxRow
from tests.app.store.bench import Bench, training

SPEC = training()


def keys(bench: Bench, count: int) -> list[str]:
    made = [new_id("key") for _ in range(count)]
    with bench.database.write() as session:
        for name in made:
            moment = now(session)
            session.add(KeyRow(id=name, workspace="default", name=name, scopes=[], sha256="", created_at=moment))
    return made


def queued(bench: Bench, owners: Sequence[str | None], *, priorities: list[int] | None = None) -> list[JobRow]:
    """A job for each of `owners`, in that order."""
    with bench.database.write() as session:
        jobs = JobRepository(session)
        given = priorities or [0] * len(owners)
        return [jobs.create(SPEC, api_key=key, priority=priority) for key, priority in zip(owners, given, strict=True)]


def ring(bench: Bench, room: int = 2) -> list[str]:
    """One round of a dispatcher."""
    with bench.database.snapshot() as session:
        due = outbox.due(session, "cpu", room)
    bench.write(lambda session: outbox.rung(session, due))
    return [job_id for job_id, _ in due]


def rounds(bench: Bench, count: int | None = None, room: int = 2) -> list[str]:
    """The order in which jobs are sent to the workers."""
    found: list[str] = []
    for _ in itertools.count() if count is None else range(count):
        sent = ring(bench, room)
        if not sent:
            return found
        found += sent
    return found


def served(bench: Bench) -> dict[str, int]:
    return dict(bench.read(lambda session: shares(session, "cpu")).served)


def test_each_key_has_its_share_whoever_queued_more(bench: Bench) -> None:
    greedy, modest = keys(bench, 2)
    jobs = queued(bench, [greedy] * 90 + [modest] * 30)
    owner = {job.id: job.api_key for job in jobs}
    order = rounds(bench)
    assert sorted(order) == sorted(owner)
    for length in range(2, 60):
        counts = Counter(owner[job_id] for job_id in order[:length])
        assert abs(counts[greedy] - counts[modest]) <= 1, "while both wait they take turns"
    for fifo, job in enumerate(jobs):
        assert order.index(job.id) <= 2 * fifo + 1, "nobody waits over twice as long as in one line"


def test_unkeyed_jobs_count_as_one_key_and_devices_have_their_own_turns(bench: Bench) -> None:
    [key] = keys(bench, 1)
    jobs = queued(bench, [None, None, None, key])
    order = rounds(bench)
    assert [order.index(job.id) for job in jobs] == [0, 2, 3, 1]
    assert served(bench) == {"": 3, key: 1}
    assert bench.read(lambda session: shares(session, "gpu")).served == {}


def test_a_key_that_was_idle_is_owed_nothing(bench: Bench) -> None:
    busy, idle = keys(bench, 2)
    queued(bench, [busy] * 40)
    rounds(bench, 15)
    late = queued(bench, [idle] * 20)
    order = rounds(bench)
    assert [order.index(job.id) for job in late[:10]] == list(range(0, 20, 2)), "from the first they take turns"


def test_priority_decides_within_a_key_and_never_between_keys(bench: Bench) -> None:
    one, two = keys(bench, 2)
    jobs = queued(bench, [one, one, one, two, two], priorities=[0, 5, 9, 0, 0])
    order = rounds(bench)
    assert [order.index(job.id) for job in jobs] == [4, 2, 0, 1, 3]


def test_dispatchers_at_once_ring_in_one_order_and_count_once(bench: Bench) -> None:
    one, two = keys(bench, 2)
    jobs = queued(bench, [one] * 20 + [two] * 20)
    start = threading.Barrier(3)

    def dispatcher(_: int) -> None:
        start.wait(10)
        rounds(bench)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(dispatcher, range(3)))
    assert bench.read(outbox.waiting) == 0
    assert sum(served(bench).values()) == len(jobs), "a doorbell counts once, whoever rings it too"
    assert abs(served(bench)[one] - served(bench)[two]) <= 1


def test_a_worker_that_is_quicker_than_the_dispatcher_counts_its_job(bench: Bench) -> None:
    [key] = keys(bench, 1)
    [job] = queued(bench, [key])
    due = bench.read(lambda session: outbox.due(session, "cpu", 2))
    with bench.database.write() as session:
        assert leases.claim(session, Lease(job.id, 1, "worker"), 60) is not None
    bench.write(lambda session: outbox.rung(session, due))
    assert served(bench) == {key: 1}


@pytest.mark.parametrize("seed", range(4))
def test_positions_are_what_the_dispatcher_does(bench: Bench, seed: int) -> None:
    chance = random.Random(seed)
    owners: list[str | None] = [None, *keys(bench, chance.randint(1, 4))]

    def more(count: int) -> None:
        weights = [chance.random() ** 3 for _ in owners]
        picked = chance.choices(owners, weights, k=count)
        queued(bench, picked, priorities=[chance.choice([0, 0, 0, 1, -1]) for _ in picked])

    more(25)
    rounds(bench, chance.randint(0, 8))
    more(15)
    sent = ring(bench, 3)
    with bench.database.read() as session:
        jobs = JobRepository(session)
        positions = jobs.queue_positions(jobs.page(status="queued", limit=100).rows)
    rung = bench.read(lambda session: [job_id for job_id, _ in outbox.queued(session, "cpu")])
    assert set(sent) <= set(rung)
    assert sorted(positions[job_id] for job_id in rung) == list(range(len(rung))), "sent ones are before all others"
    order = rounds(bench, room=chance.randint(1, 5))
    assert [positions[job_id] for job_id in order] == list(range(len(rung), len(rung) + len(order)))


def test_a_long_queue_is_read_once_and_new_jobs_are_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    [key] = keys(bench, 1)
    first = queued(bench, [None] * 4 + [key])
    monkeypatch.setattr(queue, "SHORT", 3)
    queues = Queues()

    def positions(jobs: list[JobRow]) -> list[int]:
        found = bench.read(lambda session: queues.positions(session, jobs))
        return [found[job.id] for job in jobs]

    assert positions(first) == [0, 2, 3, 4, 1]
    monkeypatch.setattr(queue, "read", None)  # from here on the whole queue is not read again
    monkeypatch.setattr(queue, "CATCH_UP_SECONDS", 0.0)
    later = queued(bench, [key, None])
    assert positions(later[1:]) == [6], "the one between is found without being asked for"
    assert positions(later) == [3, 6]
    assert positions([first[1], first[-1]]) == [2, 1]
    with bench.database.write() as session:
        session.execute(text("UPDATE jobs SET queue_key = 0 WHERE id = :id"), {"id": first[2].id})
    assert positions([bench.get(first[2].id)]) == [0], "as one that came back with another place"
    monkeypatch.undo()
    monkeypatch.setattr(queue, "SHORT", 3)
    monkeypatch.setattr(queue, "KEPT_SECONDS", 0.0)
    bench.claim(first[0])
    fresh = Queues()
    assert bench.read(lambda session: fresh.positions(session, [first[3]]))[first[3].id] == 4


def test_while_a_long_queue_is_read_anew_the_others_answer_from_what_was_read_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = queued(bench, [None] * 5)
    monkeypatch.setattr(queue, "SHORT", 3)
    monkeypatch.setattr(queue, "KEPT_SECONDS", 0.0)
    monkeypatch.setattr(queue, "LARGEST_LOAD", 1e9)  # so it may be read anew at once
    queues, begun, go_on, read = Queues(), threading.Event(), threading.Event(), queue.read

    def position(job: JobRow) -> int:
        with bench.database.read() as session:
            return queues.positions(session, [job])[job.id]

    def slowly(session: Session, device: str) -> queue.Queue:
        found = read(session, device)
        begun.set()
        assert go_on.wait(10)
        return found

    assert position(jobs[4]) == 4
    monkeypatch.setattr(queue, "read", slowly)
    with ThreadPoolExecutor(1) as threads:
        reader = threads.submit(position, jobs[4])
        assert begun.wait(10)
        try:
            [later] = queued(bench, [None])
            assert position(later) == 5
        finally:
            go_on.set()
        assert reader.result() == 4
    monkeypatch.setattr(queue, "read", read)
    bench.claim(jobs[0])
    assert position(later) == 4, "the next reads it anew"

    def fails(*_: object) -> queue.Queue:
        raise DatabaseBusy("no time")

    monkeypatch.setattr(queue, "read", fails)
    with pytest.raises(DatabaseBusy):
        position(later)
    monkeypatch.setattr(queue, "read", read)
    bench.claim(jobs[1])
    assert position(later) == 3, "a thread that failed is no longer reading"


def test_a_long_queue_costs_a_round_no_more_than_a_short_one(sqlite_database: Database) -> None:
    """Counted in the steps of SQLite's machine, not in time; `./run bench service` measures both databases."""
    bench = Bench(sqlite_database)
    owners = keys(bench, 2)

    def steps_of_a_round() -> int:
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        with bench.database.read() as session:
            driver: Any = session.connection().connection.driver_connection
            driver.set_progress_handler(step, 10)
            assert len(outbox.due(session, "cpu", 4)) == 4
            driver.set_progress_handler(None, 10)
        return count

    [template] = queued(bench, [None])
    values = {column.name: getattr(template, column.name) for column in JobRow.__table__.columns}
    for length in (20, 5_000):
        jobs = [
            {**values, "id": new_id("job"), "api_key": owners[n % 2], "queue_key": length + n} for n in range(length)
        ]
        bells = [{"job": job["id"], "attempt": 1, "created_at": template.created_at} for job in jobs]
        with bench.database.write() as session:
            session.execute(insert(JobRow), jobs)
            session.execute(insert(OutboxRow), bells)
        if length == 20:
            short = steps_of_a_round()
    assert steps_of_a_round() < 1.2 * short + 10
