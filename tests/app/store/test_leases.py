"""A job in a worker's hands, and what happens when the worker is lost: fencing on both databases."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from app.store import checkpoints, events, leases, outbox, outcomes
from app.store.errors import LeaseLost
from app.store.events import EventId, JobEvent
from app.store.jobs import JobRepository
from app.store.leases import Lease
from app.store.sessions import now
from tests.app.store.bench import Bench, evaluation, metrics, points, training


def test_a_claim_moves_the_job_to_running(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim(job, "host:1", seconds=30)
    stored = bench.get(job.id)
    assert (stored.status, stored.lease_owner, stored.runtime) == ("running", "host:1", {"torch": "2.13.0"})
    assert stored.lease_expires_at is not None
    assert stored.started_at is not None
    assert abs(stored.lease_expires_at - stored.started_at - timedelta(seconds=30)) < timedelta(seconds=0.1)
    assert bench.read(outbox.waiting) == 0
    assert bench.read(lambda session: events.next_id(session, job.id, 1)) == EventId(1, 1)
    assert lease == Lease(job.id, 1, "host:1")


def test_one_of_many_workers_gets_the_job(bench: Bench) -> None:
    job = bench.create()

    def claim(number: int) -> bool:
        lease = Lease(job.id, 1, f"worker {number}")
        return bench.write(lambda session: leases.claim(session, lease, 60)) is not None

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(claim, range(6))) == 1


def test_nothing_but_the_current_queued_attempt_can_be_claimed(bench: Bench) -> None:
    job = bench.create()
    for attempt in (0, 2):
        assert bench.write(lambda session: leases.claim(session, Lease(job.id, attempt, "w"), 60)) is None  # noqa: B023
    assert bench.write(lambda session: leases.claim(session, Lease("job_none", 1, "w"), 60)) is None
    bench.cancel(job.id)
    assert bench.write(lambda session: leases.claim(session, Lease(job.id, 1, "w"), 60)) is None


def test_renewal_and_progress_answer_with_the_status(bench: Bench) -> None:
    lease = bench.running()
    before = bench.get(lease.job_id).lease_expires_at
    assert bench.write(lambda session: leases.renew(session, lease, 600)) == "running"
    job = bench.get(lease.job_id)
    assert job.lease_expires_at is not None
    assert before is not None
    assert job.lease_expires_at - before > timedelta(seconds=500)
    assert bench.write(lambda session: leases.progress(session, lease, 41, 1000, 12.5)) == "running"
    job = bench.get(lease.job_id)
    assert (job.step, job.total, job.eta_seconds) == (41, 1000, 12.5)
    bench.cancel(lease.job_id)
    assert bench.write(lambda session: leases.renew(session, lease, 60)) == "cancelling"
    assert bench.write(lambda session: leases.progress(session, lease, 42, 1000, None)) == "cancelling"
    assert bench.record(lease, metrics(1, 1, points(1, 3))) == "cancelling"


WRITES: dict[str, Callable[[Session, Lease], object]] = {
    "renew": lambda session, lease: leases.renew(session, lease, 60),
    "progress": lambda session, lease: leases.progress(session, lease, 1, 2, None),
    "runtime": lambda session, lease: leases.ran_on(session, lease, {"backend": "torch"}),
    "record": lambda session, lease: leases.record(session, lease, [metrics(1, 9, points(1, 1))]),
    "fail": lambda session, lease: leases.fail(session, lease, "no"),
    "cancelled": leases.cancelled,
    "release": leases.release,
    "checkpoint": lambda session, lease: checkpoints.put(
        session, lease, 1, EventId(1, 9), b"x", runtime={}, identical=True
    ),
    "finish": lambda session, lease: outcomes.finish_training(
        session,
        lease,
        EventId(1, 9),
        weights=b"w",
        validation_score=1.0,
        card={},
    ),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_worker_that_lost_its_job_cannot_write(bench: Bench, write: Callable[[Session, Lease], object]) -> None:
    lease = bench.running()
    bench.expire(lease.job_id)
    (lapse,) = bench.lapsed()
    assert (lapse.outcome, lapse.attempt) == ("queued", 2)
    before = bench.get(lease.job_id), bench.events(lease.job_id)
    strangers = [lease, Lease(lease.job_id, 2, "worker"), Lease(lease.job_id, 1, "another")]
    other = bench.claim(bench.get(lease.job_id), "new worker")
    for stranger in [*strangers, Lease(lease.job_id, 2, "another")]:
        with pytest.raises(LeaseLost, match=f"Attempt {stranger.attempt} of job {stranger.job_id}"):
            bench.write(lambda session: write(session, stranger))  # noqa: B023
    assert bench.events(lease.job_id) == before[1]
    assert bench.write(lambda session: leases.renew(session, other, 60)) == "running"
    assert bench.read(lambda session: checkpoints.newest(session, lease.job_id)) is None


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_an_owner_that_has_the_next_attempt_cannot_write_as_the_one_before(
    bench: Bench, write: Callable[[Session, Lease], object]
) -> None:
    before = bench.running()
    bench.expire(before.job_id)
    bench.lapsed()
    present = bench.claim(bench.get(before.job_id), before.owner)
    assert (present.owner, present.attempt) == (before.owner, before.attempt + 1)
    events_before = bench.events(before.job_id)
    with pytest.raises(LeaseLost, match="Attempt 1 of job"):
        bench.write(lambda session: write(session, before))
    stored = bench.get(before.job_id)
    assert (stored.status, stored.attempt, stored.step, stored.runtime) == ("running", 2, 0, {"torch": "2.13.0"})
    assert bench.events(before.job_id) == events_before


def test_a_lost_worker_costs_an_attempt_and_the_third_the_job(bench: Bench) -> None:
    job = bench.create()
    for attempt in (1, 2):
        bench.claim(bench.get(job.id), f"worker {attempt}")
        assert bench.lapsed() == [], "a lease that holds is left alone"
        bench.expire(job.id)
        (lapse,) = bench.lapsed()
        assert (lapse.job_id, lapse.attempt, lapse.outcome) == (job.id, attempt + 1, "queued")
        assert bench.read(lambda session: outbox.due(session, "cpu", 9)) == [(job.id, attempt + 1)]
    bench.claim(bench.get(job.id), "worker 3")
    bench.expire(job.id)
    (lapse,) = bench.lapsed()
    assert lapse.outcome == "failed"
    stored = bench.get(job.id)
    assert stored.status == "failed"
    assert stored.status_reason is not None
    assert stored.status_reason.startswith("worker_lost: worker 3")
    assert [(str(event.id), event.kind, event.data["status"]) for event in bench.events(job.id)] == [
        ("2-1", "status", "queued"),
        ("3-1", "status", "queued"),
        ("4-1", "done", "failed"),
    ]
    assert bench.lapsed() == []
    assert bench.retry(job.id).lost_workers == 0


def test_the_backoff_doubles_and_is_honoured(bench: Bench) -> None:
    job = bench.create()
    waits = []
    for _ in range(2):
        bench.claim(bench.get(job.id))
        bench.expire(job.id)
        moment = bench.read(now)
        bench.lapsed(backoff_seconds=100)
        stored = bench.get(job.id)
        assert stored.not_before is not None
        waits.append((stored.not_before - moment).total_seconds())
        assert bench.read(lambda session: outbox.due(session, "cpu", 9)) == []
        assert bench.read(lambda session: outbox.queued(session, "cpu")) == []
    assert waits == pytest.approx([100, 200], abs=2)
    bench.claim(bench.get(job.id))
    assert bench.get(job.id).not_before is None


def test_a_short_backoff_ends_by_itself(bench: Bench) -> None:
    lease = bench.running()
    bench.expire(lease.job_id)
    bench.lapsed(backoff_seconds=0.05)
    started = bench.read(now)
    while not bench.read(lambda session: outbox.due(session, "cpu", 9)):
        assert bench.read(now) - started < timedelta(seconds=5)


def test_a_lost_worker_of_a_job_that_was_to_be_cancelled(bench: Bench) -> None:
    lease = bench.running()
    bench.cancel(lease.job_id)
    bench.expire(lease.job_id)
    (lapse,) = bench.lapsed()
    assert lapse.outcome == "cancelled"
    (done,) = bench.events(lease.job_id)
    assert (done.kind, done.data["status"], str(done.id)) == ("done", "cancelled", "2-1")
    assert bench.read(outbox.waiting) == 0


@pytest.mark.parametrize("ending", ["finish", "fail", "cancelled", "release"])
def test_however_a_worker_ends_a_cancelled_job_it_is_cancelled(bench: Bench, ending: str) -> None:
    lease = bench.running(training(evaluate=True))
    bench.cancel(lease.job_id)
    if ending == "finish":
        outcome = bench.finish(lease)
        assert outcome.optimizer is None
        assert outcome.follow_up is None
        event = outcome.event
    else:
        event = bench.write(lambda session: WRITES[ending](session, lease))
    assert (event.kind, event.data) == (
        "done",
        {"status": "cancelled", "reason": "cancelled while running", "optimizer": None},
    )
    assert bench.get(lease.job_id).status == "cancelled"
    assert bench.events(lease.job_id) == [event]
    assert len(bench.read(lambda session: JobRepository(session).page().rows)) == 1


def test_preemption_is_no_lost_worker(bench: Bench) -> None:
    job = bench.create()
    for attempt in range(1, 6):
        lease = bench.claim(bench.get(job.id))
        assert lease.attempt == attempt
        event = bench.write(lambda session: leases.release(session, lease))  # noqa: B023
        assert event.data == {"status": "queued", "attempt": attempt + 1, "reason": "preempted"}
        assert bench.read(lambda session: outbox.due(session, "cpu", 9)) == [(job.id, attempt + 1)]
    assert bench.get(job.id).lost_workers == 0


def test_a_failure_says_why(bench: Bench) -> None:
    lease = bench.running()
    event = bench.fail(lease, "DatasetMissing: mnist is not in var/data")
    job = bench.get(lease.job_id)
    assert (job.status, job.status_reason) == ("failed", "DatasetMissing: mnist is not in var/data")
    assert event.data["reason"] == job.status_reason
    assert job.finished_at is not None
    assert job.lease_owner is None
    with pytest.raises(LeaseLost):
        bench.fail(lease, "again")


def test_one_transaction_ends_a_training_with_all_that_follows(bench: Bench) -> None:
    job = bench.create(training(evaluate=True), labels={"team": "a"}, priority=2)
    lease = bench.claim(job)
    bench.record(lease, metrics(1, 1, points(1, 64)))
    outcome = bench.finish(lease, sequence=3, last=[metrics(1, 2, points(65, 6))])
    assert outcome.optimizer is not None
    assert outcome.follow_up is not None
    stored = bench.get(job.id)
    assert (stored.status, stored.optimizer, stored.step) == ("succeeded", outcome.optimizer.id, stored.total)
    child = bench.get(outcome.follow_up.id)
    assert (child.kind, child.parent_job, child.optimizer) == ("evaluate", job.id, outcome.optimizer.id)
    assert (child.status, child.labels, child.priority) == ("queued", {"team": "a"}, 2)
    assert bench.read(lambda session: outbox.due(session, "cpu", 9)) == [(child.id, 1)]
    kinds = [(str(event.id), event.kind) for event in bench.events(job.id)]
    assert kinds == [("1-1", "metrics"), ("1-2", "metrics"), ("1-3", "done")]
    assert outcome.event.data == {"status": "succeeded", "reason": None, "optimizer": outcome.optimizer.id}


def test_when_the_last_transaction_fails_nothing_of_it_stays(bench: Bench) -> None:
    lease = bench.running(training(evaluate=True))

    def finish_and_crash(session: Session) -> None:
        outcomes.finish_training(
            session,
            lease,
            EventId(1, 2),
            weights=b"w",
            validation_score=1.0,
            card={},
            last_events=[metrics(1, 1, points(1, 3))],
        )
        raise ConnectionError

    with pytest.raises(ConnectionError):
        bench.write(finish_and_crash)
    assert bench.get(lease.job_id).status == "running"
    assert bench.events(lease.job_id) == []
    assert bench.finish(lease).optimizer is not None


def test_an_evaluation_is_stored_with_its_end(bench: Bench) -> None:
    made = bench.finish(bench.running()).optimizer
    assert made is not None
    lease = bench.running(evaluation(made.id))
    result = {"format": 1, "verdict": {"final": "wins"}, "curve": [1.5, None]}
    outcome = bench.write(lambda session: outcomes.finish_evaluation(session, lease, EventId(1, 1), result=result))
    assert outcome.event.data["optimizer"] == made.id
    assert bench.get(lease.job_id).status == "succeeded"


def test_checkpoints_replace_each_other(bench: Bench) -> None:
    lease = bench.running()
    assert bench.read(lambda session: checkpoints.newest(session, lease.job_id)) is None
    for step in (5, 10):
        facts, content = {"torch": f"2.{step}"}, bytes([step]) * 50_000
        with bench.database.write() as session:
            checkpoints.put(session, lease, step, EventId(1, step), content, runtime=facts, identical=step == 5)
    newest = bench.read(lambda session: checkpoints.newest(session, lease.job_id))
    assert (newest.step, newest.event_id, newest.content) == (10, EventId(1, 10), bytes([10]) * 50_000)
    assert (newest.runtime, newest.identical) == ({"torch": "2.10"}, False)
    bench.fail(lease)
    assert bench.read(lambda session: checkpoints.newest(session, lease.job_id)) == newest, "retry goes on from it"


def test_doorbells_are_rung_once_and_can_be_rung_again(bench: Bench) -> None:
    jobs = [bench.create() for _ in range(3)]
    with bench.database.write() as session:
        rung = outbox.due(session, "cpu", 2)
        assert rung == [(jobs[0].id, 1), (jobs[1].id, 1)]
        outbox.rung(session, rung)
    assert bench.read(lambda session: outbox.due(session, "cpu", 9)) == [(jobs[2].id, 1)]
    assert bench.read(lambda session: outbox.queued(session, "cpu")) == rung, "these RQ must know"
    assert bench.write(lambda session: outbox.ring_again(session, jobs[0].id, 1)) is True
    assert bench.write(lambda session: outbox.ring_again(session, jobs[0].id, 1)) is False
    assert bench.read(lambda session: outbox.due(session, "cpu", 9)) == [(jobs[0].id, 1), (jobs[2].id, 1)]
    bench.claim(jobs[1])
    assert bench.write(lambda session: outbox.ring_again(session, jobs[1].id, 1)) is False


def test_two_reconcilers_never_take_over_the_same_job(bench: Bench) -> None:
    lease = bench.running()
    bench.expire(lease.job_id)
    with ThreadPoolExecutor(4) as threads:
        lapses = [lapse for found in threads.map(lambda _: bench.lapsed(), range(4)) for lapse in found]
    assert [lapse.attempt for lapse in lapses] == [2]


def test_events_keep_their_order_and_say_where_to_go_on(bench: Bench) -> None:
    lease = bench.running()
    said = [
        JobEvent.of(EventId(1, 1), "status", {"status": "running", "attempt": 1, "reason": None}),
        metrics(1, 2, points(1, 5)),
        JobEvent.of(EventId(1, 3), "log", {"message": "naïve ✓", "level": "info"}),
        metrics(1, 4, points(6, 64)),
        JobEvent.of(EventId(1, 5), "checkpoint", {"step": 69}),
    ]
    bench.record(lease, *said[:3])
    assert bench.read(lambda session: events.next_id(session, lease.job_id, 1)) == EventId(1, 4)
    bench.record(lease, *said[3:])
    assert bench.read(lambda session: events.next_id(session, lease.job_id, 1)) == EventId(1, 6)
    assert bench.events(lease.job_id) == said
    for index, event in enumerate(said):
        assert bench.events(lease.job_id, event.id) == said[index + 1 :]
