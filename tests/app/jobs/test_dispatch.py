"""Doorbells: rung in the database's order, few at a time, and found again when they are lost."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
import redis
from rq import Queue, Worker
from rq.job import Job
from rq.serializers import JSONSerializer
from sqlalchemy.orm import Session

from app.jobs.dispatch import FUNCTION, REDIS_AWAY, Dispatcher, doorbell_id
from app.settings import Settings
from app.store import leases, outbox
from app.store.events import EventId, JobEvent
from app.store.jobs import JobRepository
from app.store.leases import Lease
from app.store.sessions import Database
from app.streams import Publisher, stream_key
from tests.workers.harness import QUICK, create, job, training, wait_for
from workshop.services import ValkeyServer


@pytest.fixture
def quick(settings: Settings, database_url: str) -> Settings:
    return settings.model_copy(update={**QUICK, "database_url": database_url})


@contextmanager
def queue_of(settings: Settings) -> Iterator[Queue]:
    with redis.Redis.from_url(settings.resolved_redis_url) as connection:
        yield Queue("cpu", connection=connection, serializer=JSONSerializer)


def test_few_doorbells_are_out_and_the_database_chooses_which(quick: Settings, database: Database) -> None:
    low = [create(database, training()) for _ in range(4)]
    with database.write() as session:
        urgent = JobRepository(session).create(training(), priority=1).id
    dispatcher = Dispatcher(quick, database)
    with queue_of(quick) as queue:
        assert dispatcher.ring() == 2
        assert queue.get_job_ids() == [doorbell_id(urgent, 1), doorbell_id(low[0], 1)]
        assert dispatcher.ring() == 0, "nobody answers yet"
        queue.pop_job_id()
        assert dispatcher.ring() == 1
    dispatcher.stop()


def test_room_grows_with_the_workers_and_shrinks_with_those_at_work(quick: Settings, database: Database) -> None:
    for _ in range(8):
        create(database, training())
    dispatcher = Dispatcher(quick, database)
    with queue_of(quick) as queue:
        workers = [Worker([queue], name=f"w{n}", connection=queue.connection) for n in range(3)]
        for worker in workers:
            worker.register_birth()
        workers[0].set_state("busy")
        workers[2].register_death()
        assert dispatcher.ring() == 2 * 2 - 1
    dispatcher.stop()


def test_a_doorbell_carries_the_job_and_its_attempt_and_nothing_else(quick: Settings, database: Database) -> None:
    job_id = create(database, training())
    dispatcher = Dispatcher(quick, database)
    dispatcher.ring()
    with queue_of(quick) as queue:
        [doorbell] = queue.get_jobs()
        assert (doorbell.func_name, tuple(doorbell.args), doorbell.kwargs) == (FUNCTION, (job_id, 1), {})
    dispatcher.stop()


def test_two_dispatchers_ring_each_job_once(quick: Settings, database: Database) -> None:
    job_id = create(database, training())
    first, second = Dispatcher(quick, database), Dispatcher(quick, database)
    first.ring()
    with database.write() as session:
        outbox.ring_again(session, job_id, 1)  # as if the second had read the row before the first was done
    second.ring()
    with queue_of(quick) as queue:
        assert queue.get_job_ids() == [doorbell_id(job_id, 1)]
    with database.read() as session:
        assert outbox.waiting(session) == 0
    first.stop()
    second.stop()


def test_what_is_due_is_read_in_one_snapshot(
    quick: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes several statements: what another dispatcher rings between two of them would cost a key its turn."""
    levels: list[str] = []
    ask = outbox.due

    def due(session: Session, device: str, limit: int) -> list[tuple[str, int]]:
        levels.append(session.connection().get_isolation_level())
        return ask(session, device, limit)

    monkeypatch.setattr(outbox, "due", due)
    create(database, training())
    dispatcher = Dispatcher(quick, database)
    assert dispatcher.ring() == 1
    dispatcher.stop()
    assert levels == ["SERIALIZABLE" if database.is_sqlite else "REPEATABLE READ"]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_job_that_redis_forgot_is_rung_again(
    quick: Settings, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = create(database, training())
    dispatcher = Dispatcher(quick, database)
    dispatcher.ring()
    with queue_of(quick) as queue:
        dispatcher.reconcile()
        dispatcher.reconcile()
        assert dispatcher.ring() == 0, "it waits in RQ: nothing is lost"
        queue.connection.flushdb()
        dispatcher.reconcile()
        assert dispatcher.ring() == 0, "a worker may just be about to claim it"
        dispatcher.reconcile()
        assert dispatcher.ring() == 1
        assert queue.get_job_ids() == [doorbell_id(job_id, 1)]
    dispatcher.stop()
    assert warnings_of(caplog) == [f"job {job_id} attempt 1 had lost its doorbell; ringing again"]


def test_a_job_whose_worker_died_before_the_claim_is_rung_again(
    quick: Settings, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """RQ still holds the doorbell's record then, which `unique` alone would take for the doorbell."""
    caplog.set_level(logging.INFO, "gradsmith.dispatch")
    job_id = create(database, training())
    dispatcher = Dispatcher(quick, database)
    dispatcher.ring()
    with queue_of(quick) as queue:
        assert queue.pop_job_id() == doorbell_id(job_id, 1)
        dispatcher.reconcile()
        dispatcher.reconcile()
        assert dispatcher.ring() == 1
        assert queue.get_job_ids() == [doorbell_id(job_id, 1)]
    dispatcher.stop()
    assert warnings_of(caplog) == [], "most often it only starts slowly"
    assert any("is not claimed yet; ringing again" in record.getMessage() for record in caplog.records)


def taken_and_left(queue: Queue, name: str) -> str:
    """A worker took this doorbell and was killed before the claim; the key of RQ's record of that execution."""
    worker = Worker([queue], name=name, connection=queue.connection, serializer=JSONSerializer)
    worker.register_birth()
    doorbell, _ = Queue.dequeue_any([queue], None, connection=queue.connection, serializer=JSONSerializer) or (
        None,
        None,
    )
    assert doorbell is not None
    execution = worker.prepare_execution(doorbell)
    worker.prepare_job_execution(doorbell)  # its status is `started` now
    return str(execution.key)


def test_a_record_of_rq_that_expired_in_parts_keeps_no_job_from_its_doorbell(
    quick: Settings, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """The hash of an execution lives a minute less than the registry that names it."""
    jobs = [create(database, training()) for _ in range(2)]
    dispatcher = Dispatcher(quick, database)
    with queue_of(quick) as queue:
        dispatcher.ring()
        for number in range(2):
            queue.connection.delete(taken_and_left(queue, f"w{number}"))
        with pytest.raises(ValueError, match="not found in Redis"):
            Job.fetch(doorbell_id(jobs[0], 1), connection=queue.connection, serializer=JSONSerializer).delete()
        queue.connection.delete(*queue.connection.keys("rq:worker:*"))
        dispatcher.reconcile()
        dispatcher.reconcile()
        assert dispatcher.ring() == 2
        assert queue.get_job_ids() == [doorbell_id(job_id, 1) for job_id in jobs]
        assert queue.started_job_registry.get_job_ids(cleanup=False) == [], "nothing is left of those who took them"
    dispatcher.stop()
    assert warnings_of(caplog) == []


def test_a_key_that_is_no_record_of_rq_keeps_no_job_from_its_doorbell(quick: Settings, database: Database) -> None:
    jobs = [create(database, training()) for _ in range(2)]
    dispatcher = Dispatcher(quick, database)
    with queue_of(quick) as queue:
        queue.connection.set(Job.key_for(doorbell_id(jobs[0], 1)), "no record of RQ")
        dispatcher.ring()
        assert queue.get_job_ids() == [doorbell_id(jobs[1], 1)]
        dispatcher.reconcile()
        dispatcher.reconcile()
        dispatcher.ring()
        assert queue.get_job_ids() == [doorbell_id(job_id, 1) for job_id in reversed(jobs)]
    dispatcher.stop()


def test_a_lapse_that_another_attempt_has_outlived_stops_no_round(quick: Settings, database: Database) -> None:
    """The next attempt wrote to the job's stream before the dispatcher told of the lapse."""
    jobs = [create(database, training()) for _ in range(2)]
    with database.write() as session:
        for job_id in jobs:
            leases.claim(session, Lease(job_id, 1, "somebody"), -1.0)
    with closing(Publisher(quick, jobs[0])) as publisher:
        publisher.publish(JobEvent.of(EventId(9, 1), "log", {"level": "info", "message": "later"}))
    dispatcher = Dispatcher(quick, database)
    assert sorted(lapse.job_id for lapse in dispatcher.reconcile()) == sorted(jobs)
    with queue_of(quick) as queue:
        entries = queue.connection.xrange(stream_key(jobs[1]))
        assert len(entries) == 1, "the other job's watchers are told"
    dispatcher.stop()


def test_a_lapsed_lease_is_a_new_attempt_with_a_doorbell(quick: Settings, database: Database) -> None:
    job_id = create(database, training())
    with database.write() as session:
        leases.claim(session, Lease(job_id, 1, "somebody"), -1.0)
    dispatcher = Dispatcher(quick, database)
    [lapse] = dispatcher.reconcile()
    assert (lapse.job_id, lapse.attempt, lapse.outcome) == (job_id, 2, "queued")
    wait_for(dispatcher.ring, "the backoff to pass")
    with queue_of(quick) as queue:
        assert queue.get_job_ids() == [doorbell_id(job_id, 2)]
    dispatcher.stop()


def test_redis_that_is_away_is_logged_once_and_waited_for(
    quick: Settings, database: Database, valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    settings = quick.model_copy(update={"redis_url": Settings(redis_url=valkey.url).redis_url})
    valkey.stop()
    caplog.set_level(logging.INFO, "gradsmith.dispatch")
    dispatcher = Dispatcher(settings, database)
    dispatcher.start()
    job_id = create(database, training())
    wait_for(lambda: [record for record in caplog.records if "dispatch waits" in record.message], "the log line")
    valkey.start()
    with queue_of(settings) as queue:
        wait_for(lambda: queue.get_job_ids() == [doorbell_id(job_id, 1)], "the doorbell")
    dispatcher.stop()
    assert len([record for record in caplog.records if "dispatch waits" in record.message]) == 1
    assert any("dispatch goes on" in record.message for record in caplog.records)
    assert job(database, job_id).status == "queued"


def test_what_queued_jobs_wait_for(quick: Settings, database: Database, valkey: ValkeyServer) -> None:
    settings = quick.model_copy(update={"redis_url": Settings(redis_url=valkey.url).redis_url})
    dispatcher = Dispatcher(settings, database)
    assert (dispatcher.obstacle("cpu"), dispatcher.obstacle("gpu")) == (None, None), "nobody has looked"
    with queue_of(settings) as queue:
        worker = Worker([queue], name="w", connection=queue.connection)
        worker.register_birth()
        dispatcher.look()
        assert dispatcher.obstacle("cpu") is None
        assert "worker --queues gpu" in str(dispatcher.obstacle("gpu"))
        worker.register_death()
        dispatcher.look()
        assert "worker --queues cpu" in str(dispatcher.obstacle("cpu"))
    valkey.stop()
    dispatcher.look()
    assert dispatcher.obstacle("cpu") == dispatcher.obstacle("gpu") == REDIS_AWAY
    valkey.start()
    dispatcher.start()
    wait_for(lambda: dispatcher.obstacle("cpu") != REDIS_AWAY, "a look of the thread's own")
    dispatcher.stop()


def test_wake_begins_a_round_at_once(quick: Settings, database: Database) -> None:
    slow = quick.model_copy(update={"dispatch_interval_seconds": 60.0})
    dispatcher = Dispatcher(slow, database)
    dispatcher.start()
    job_id = create(database, training())
    dispatcher.wake()
    with queue_of(slow) as queue:
        wait_for(lambda: queue.get_job_ids() == [doorbell_id(job_id, 1)], "the doorbell", 10)
    dispatcher.stop()
