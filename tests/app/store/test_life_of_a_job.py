"""Whatever clients, workers and the reconciler do, in any order: a job's status, events and registry stay true."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import text

from app.store import curves, events, leases, outbox
from app.store.errors import JobFinished, JobNotFinished, LeaseLost
from app.store.leases import Lease
from app.store.registry import Registry
from app.store.sessions import Database
from app.store.tables import TERMINAL_STATUSES
from app.store.transitions import ALLOWED, move
from tests.app.store.bench import Bench, metrics, points


class LifeOfAJob(RuleBasedStateMachine):
    """One job. `held` is the lease that our model says holds it; all others must be refused."""

    migrated: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="gs-"))
        shutil.copy(self.migrated, self.folder / "db")
        self.bench = Bench(Database(f"sqlite:///{self.folder / 'db'}"))
        self.status = "queued"
        self.attempt = 1
        self.lost = 0
        self.held: Lease | None = None

    leases_ = Bundle("leases")

    @initialize()
    def create(self) -> None:
        self.job_id = self.bench.create().id

    @rule(target=leases_, attempt=st.integers(1, 4), owner=st.sampled_from(["a", "b"]))
    def claim(self, attempt: int, owner: str) -> Lease:
        lease = Lease(self.job_id, attempt, owner)
        claimed = self.bench.write(lambda session: leases.claim(session, lease, 60))
        expected = self.status == "queued" and attempt == self.attempt
        assert (claimed is not None) == expected
        if expected:
            self.status, self.held = "running", lease
        return lease

    def as_worker(self, lease: Lease, write: Any) -> Any:
        """Run a worker's write; whether it is accepted must be what the model says."""
        if lease == self.held:
            return self.bench.write(lambda session: write(session, lease))
        with pytest.raises(LeaseLost):
            self.bench.write(lambda session: write(session, lease))
        return None

    @rule(lease=leases_)
    def renew(self, lease: Lease) -> None:
        status = self.as_worker(lease, lambda session, lease: leases.renew(session, lease, 60))
        assert status in (None, self.status)

    @rule(lease=leases_, count=st.integers(1, 70))
    def stream(self, lease: Lease, count: int) -> None:
        def record(session: Any, lease: Lease) -> str:
            next_id = events.next_id(session, lease.job_id, lease.attempt)
            return leases.record(session, lease, [metrics(*next_id, points(70 * next_id.sequence, count))])

        assert self.as_worker(lease, record) in (None, self.status)

    def ended(self, status: str) -> None:
        self.status = "cancelled" if self.status == "cancelling" else status
        self.held = None

    @rule(lease=leases_)
    def succeed(self, lease: Lease) -> None:
        if lease != self.held:
            with pytest.raises(LeaseLost):
                self.bench.finish(lease)
            return
        sequence = self.bench.read(lambda session: events.next_id(session, lease.job_id, lease.attempt)).sequence
        outcome = self.bench.finish(lease, sequence)
        assert (outcome.optimizer is not None) == (self.status == "running")
        self.ended("succeeded")

    @rule(lease=leases_)
    def fail(self, lease: Lease) -> None:
        if self.as_worker(lease, lambda session, lease: leases.fail(session, lease, "no")):
            self.ended("failed")

    @rule(lease=leases_)
    def preempt(self, lease: Lease) -> None:
        if self.as_worker(lease, leases.release):
            if self.status == "running":
                self.attempt += 1
            self.ended("queued")

    @rule()
    def lose_the_worker(self) -> None:
        if self.held is not None:
            self.bench.expire(self.job_id)
        lapses = self.bench.lapsed(max_lost_workers=2)
        assert len(lapses) == (self.held is not None)
        if self.held is not None:
            self.lost += 1
            self.attempt += 1
            self.ended("queued" if self.lost < 2 else "failed")

    @rule()
    def cancel(self) -> None:
        if self.status in ("succeeded", "failed"):
            with pytest.raises(JobFinished):
                self.bench.cancel(self.job_id)
            return
        self.status = {"queued": "cancelled", "running": "cancelling"}.get(self.status, self.status)
        assert self.bench.cancel(self.job_id).status == self.status

    @rule()
    def retry(self) -> None:
        if self.status in ("failed", "cancelled"):
            self.bench.retry(self.job_id)
            self.status, self.lost = "queued", 0
            self.attempt += 1
        else:
            with pytest.raises((JobFinished, JobNotFinished)):
                self.bench.retry(self.job_id)

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        if not hasattr(self, "job_id"):
            return
        job = self.bench.get(self.job_id)
        assert (job.status, job.attempt, job.lost_workers) == (self.status, self.attempt, self.lost)
        assert (job.finished_at is not None) == (self.status in TERMINAL_STATUSES)
        assert (job.lease_owner is not None) == (self.held is not None)

        due = self.bench.read(lambda session: outbox.due(session, "cpu", 9))
        assert due == ([(self.job_id, self.attempt)] if self.status == "queued" else [])

        stored = self.bench.events(self.job_id)
        assert [event.id for event in stored] == sorted({event.id for event in stored})
        for attempt in range(1, self.attempt + 1):
            mine = [event.id.sequence for event in stored if event.id.attempt == attempt]
            assert mine == list(range(1, len(mine) + 1)), "sequences of an attempt have no gap"
        assert (bool(stored) and stored[-1].kind == "done") == (self.status in TERMINAL_STATUSES)
        if stored and stored[-1].kind == "done":
            assert stored[-1].data["status"] == self.status

        optimizers = self.bench.read(lambda session: Registry(session).page().rows)
        assert len(optimizers) == (self.status == "succeeded"), "exactly one optimizer a job that succeeded"
        curve = self.bench.read(lambda session: curves.read(session, self.job_id))
        assert curve.step.tolist() == sorted(set(curve.step.tolist()))

    def teardown(self) -> None:
        with self.bench.database.read() as session:
            assert session.execute(text("PRAGMA integrity_check")).scalar() == "ok"
        self.bench.database.close()
        shutil.rmtree(self.folder)


def test_any_order_of_deeds_keeps_the_story_true(migrated_sqlite: Path) -> None:
    LifeOfAJob.migrated = migrated_sqlite
    run_state_machine_as_test(
        LifeOfAJob,
        settings=settings(
            max_examples=10,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # shrinking a story takes minutes; the one it prints is short enough
        ),
    )


def test_a_change_that_the_table_lacks_is_a_bug() -> None:
    class Job:
        id, status, status_reason = "job_x", "succeeded", None

    for status in ALLOWED:
        with pytest.raises(AssertionError, match="job job_x cannot go from succeeded"):
            move(Job(), status)  # type: ignore[arg-type]
    assert all(not ALLOWED["succeeded"] & {status} for status in ALLOWED)
    assert ALLOWED["failed"] == ALLOWED["cancelled"] == {"queued", "running"}, "by retry alone; a sweep's goes on"
