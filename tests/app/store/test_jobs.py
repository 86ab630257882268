"""A job in its users' hands: created with its doorbell, listed, cancelled, retried."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.orm import Session

from app.store import outbox
from app.store.errors import BadCursor, JobFinished, JobNotFinished, JobNotFound
from app.store.ids import is_id, new_id
from app.store.insertion import queue_key
from app.store.jobs import JobRepository, spec_of
from app.store.sessions import now
from app.store.tables import JobRow, OutboxRow, WorkspaceRow
from tests.app.store.bench import Bench, evaluation, training


def test_a_new_job_says_all_about_itself(bench: Bench) -> None:
    before = datetime.now(UTC)
    job = bench.get(bench.create(training(), labels={"team": "a"}).id)
    assert is_id("job", job.id)
    assert (job.status, job.attempt, job.kind, job.family, job.device) == (
        "queued",
        1,
        "meta_train",
        "quadratic",
        "cpu",
    )
    assert (job.step, job.total, job.labels) == (0, training().recipe.meta_steps, {"team": "a"})
    assert spec_of(job) == training(), "the spec survives the database, its 63-bit seed too"
    assert abs(job.created_at - before) < timedelta(seconds=5)
    assert job.created_at.microsecond % 1000 == 0
    assert bench.events(job.id) == []


def test_an_evaluation_knows_its_optimizer(bench: Bench) -> None:
    parent = bench.create()
    job = bench.get(bench.create(evaluation("opt_x"), parent=parent.id).id)
    assert (job.kind, job.optimizer, job.parent_job) == ("evaluate", "opt_x", parent.id)


def test_what_is_answered_of_a_new_job_is_what_is_stored_and_its_doorbell_has_the_same_moment(bench: Bench) -> None:
    def once_more(session: Session) -> None:
        made = JobRepository(session).create(training(), {"of": "two"}, priority=3)
        given = {column: getattr(made, column) for column in inspect(JobRow).columns.keys()}  # noqa: SIM118
        session.expunge(made)
        stored = JobRepository(session).get(made.id)
        assert stored is not made
        assert {column: getattr(stored, column) for column in given} == given
        doorbell = session.get_one(OutboxRow, (made.id, 1))
        assert doorbell.created_at == made.created_at
        assert made.queue_key == queue_key(made.created_at, 3)
        assert made.created_at.microsecond % 1000 == 0
        assert abs(now(session) - made.created_at) < timedelta(seconds=10)

    bench.write(once_more)


def test_a_job_that_one_statement_creates_is_there_without_a_commit(bench: Bench) -> None:
    with bench.database.autocommit_write() as session:
        job_id = JobRepository(session).create(training()).id
    assert bench.get(job_id).status == "queued"
    assert bench.read(outbox.waiting) == 1


def test_the_doorbell_is_written_with_the_job_or_not_at_all(bench: Bench) -> None:
    class Refused(Exception):
        pass

    def create_and_fail(session: Session) -> None:
        JobRepository(session).create(training())
        raise Refused

    with pytest.raises(Refused):
        bench.write(create_and_fail)
    assert bench.read(outbox.waiting) == 0
    assert bench.read(lambda session: JobRepository(session).page().rows) == []


def test_ids_sort_by_age_and_are_never_twice_the_same() -> None:
    ids = [new_id("job") for _ in range(20_000)]
    assert ids == sorted(set(ids))
    assert all(re.fullmatch(r"job_[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", job_id) for job_id in ids[:100])
    milliseconds = int(ids[0][4:16], 16)
    assert abs(datetime.fromtimestamp(milliseconds / 1000, UTC) - datetime.now(UTC)) < timedelta(seconds=10)
    assert not is_id("job", "job_1")
    assert not is_id("opt", ids[0])
    assert not is_id("job", ids[0] + "\n")


def test_an_unknown_job_and_one_of_another_workspace_are_not_found(bench: Bench) -> None:
    with pytest.raises(JobNotFound, match=r"no job 'job_nothing'.*GET /jobs"):
        bench.get("job_nothing")

    def other(session: Session) -> str:
        session.add(WorkspaceRow(id="other", created_at=now(session)))
        return JobRepository(session, "other").create(training()).id

    job_id = bench.write(other)
    for act in (bench.get, bench.cancel, bench.retry):
        with pytest.raises(JobNotFound):
            act(job_id)
    assert bench.read(lambda session: JobRepository(session).page().rows) == []


def test_pages_are_newest_first_without_gap_or_double(bench: Bench) -> None:
    jobs = [bench.create(training("digits-mlp" if number % 3 else "quadratic")) for number in range(7)]

    def pages(**filters: str) -> list[str]:
        found, after = [], None
        while True:
            page = bench.read(lambda session: JobRepository(session).page(limit=2, after=after, **filters))  # noqa: B023
            assert len(page.rows) <= 2
            assert (page.next is not None) == page.has_more
            found += [job.id for job in page.rows]
            if not page.has_more:
                return found
            after = page.next
            if len(found) == 2:
                bench.create(training("quadratic-uniform"))  # what is new does not shift the pages

    newest_first = [job.id for job in reversed(jobs)]
    assert pages(family="quadratic") == [
        job_id for job_id, n in zip(newest_first, range(6, -1, -1), strict=True) if n % 3 == 0
    ]
    assert pages()[-7:] == newest_first
    assert pages(status="running") == []
    bench.claim(jobs[3])
    assert pages(status="running") == [jobs[3].id]
    assert pages(kind="evaluate") == []


def test_labels_filter_exactly_whatever_they_hold(bench: Bench) -> None:
    awkward = {'quote"d': "x'; DROP TABLE jobs --", "dot.ted": "1", "$[0]": "%_", "": "", "ünï": "✓"}
    job = bench.create(training(), labels=awkward)
    bench.create(training(), labels={"dot.ted": "2", "other": "x"})
    bench.create(training(), labels={"dot": "1"})

    def found(labels: dict[str, str]) -> list[str]:
        return [row.id for row in bench.read(lambda session: JobRepository(session).page(labels=labels).rows)]

    for key, value in awkward.items():
        assert found({key: value}) == [job.id]
        assert found({key: value + "x"}) == []
    assert found(awkward) == [job.id]
    assert found({"quote": "x"}) == []


@pytest.mark.parametrize("cursor", ["", "x", "é", "AAAA", "a" * 400, "AAAAAAAAAAAAAAAAAAAA", "=", "-1"])
def test_a_bad_cursor_is_refused(bench: Bench, cursor: str) -> None:
    with pytest.raises(BadCursor, match="`next` of a page"):
        bench.read(lambda session: JobRepository(session).page(after=cursor))


def test_a_cursor_fits_its_own_list_only(bench: Bench) -> None:
    for _ in range(2):
        bench.create()
    cursor = bench.read(lambda session: JobRepository(session).page(limit=1, status="queued").next)
    with pytest.raises(BadCursor):
        bench.read(lambda session: JobRepository(session).page(limit=1, after=cursor))
    with pytest.raises(BadCursor):
        bench.read(lambda session: JobRepository(session).page(limit=1, status="queued", after=cursor[:-2]))


def test_a_queued_job_is_cancelled_at_once_with_its_last_event(bench: Bench) -> None:
    job = bench.create()
    assert bench.cancel(job.id).status == "cancelled"
    stored = bench.get(job.id)
    assert stored.status == "cancelled"
    assert stored.finished_at is not None
    (done,) = bench.events(job.id)
    assert str(done.id) == "1-1"
    assert (done.kind, done.data["status"], done.data["optimizer"]) == ("done", "cancelled", None)
    assert bench.read(outbox.waiting) == 0
    assert bench.cancel(job.id).status == "cancelled", "again is no error"
    assert len(bench.events(job.id)) == 1


def test_a_running_job_is_asked_to_stop(bench: Bench) -> None:
    lease = bench.running()
    assert bench.cancel(lease.job_id).status == "cancelling"
    assert bench.cancel(lease.job_id).status == "cancelling"
    assert bench.events(lease.job_id) == [], "only the lease holder writes the stream of a running job"


def test_what_has_ended_can_no_longer_be_cancelled(bench: Bench) -> None:
    lease = bench.running()
    bench.fail(lease)
    with pytest.raises(JobFinished, match="has failed; it can no longer be cancelled"):
        bench.cancel(lease.job_id)
    lease = bench.running()
    bench.finish(lease)
    with pytest.raises(JobFinished, match="has succeeded"):
        bench.cancel(lease.job_id)
    with pytest.raises(JobFinished, match="nothing to retry"):
        bench.retry(lease.job_id)


def test_retry_opens_a_new_attempt(bench: Bench) -> None:
    job = bench.create()
    with pytest.raises(JobNotFinished, match="is queued; only a failed or cancelled job"):
        bench.retry(job.id)
    lease = bench.claim(job)
    bench.fail(lease, "the disk is full")
    assert bench.get(job.id).status_reason == "the disk is full"
    again = bench.retry(job.id)
    assert (again.status, again.attempt, again.finished_at) == ("queued", 2, None)
    assert bench.read(lambda session: outbox.due(session, "cpu", 10)) == [(job.id, 2)]
    assert [(str(event.id), event.kind) for event in bench.events(job.id)] == [("1-1", "done"), ("2-1", "status")]
    bench.cancel(job.id)
    assert bench.retry(job.id).attempt == 3
    assert [str(event.id) for event in bench.events(job.id)] == ["1-1", "2-1", "2-2", "3-1"]


def test_priority_goes_first_but_nothing_waits_for_ever(bench: Bench) -> None:
    old, young = bench.create(), bench.create()
    urgent = bench.create(priority=1)
    patient = bench.create(priority=-1)
    on_gpu = bench.create(training(device="gpu"))

    def order() -> list[str]:
        return [job_id for job_id, _ in bench.read(lambda session: outbox.due(session, "cpu", 10))]

    assert order() == [urgent.id, old.id, young.id, patient.id]
    assert bench.read(lambda session: outbox.due(session, "gpu", 10)) == [(on_gpu.id, 1)]
    jobs = [urgent, old, young, patient, on_gpu]
    positions = bench.read(lambda session: JobRepository(session).queue_positions(jobs))
    assert positions == {urgent.id: 0, old.id: 1, young.id: 2, patient.id: 3, on_gpu.id: 0}
    bench.claim(urgent)
    assert bench.read(lambda session: JobRepository(session).queue_position(JobRepository(session).get(old.id))) == 0
    assert (
        bench.read(lambda session: JobRepository(session).queue_position(JobRepository(session).get(urgent.id))) is None
    )
    # The same as having come a quarter of an hour ago: a level of priority is worth ten minutes.
    with bench.database.write() as session:
        session.execute(text("UPDATE jobs SET queue_key = queue_key - 900000 WHERE id = :id"), {"id": patient.id})
    assert order() == [patient.id, old.id, young.id]


def test_the_unfinished_job_that_a_family_waits_for(bench: Bench) -> None:
    def waited_for(family: str) -> str | None:
        job = bench.read(lambda session: JobRepository(session).newest_unfinished(family))
        return job and job.id

    assert waited_for("quadratic") is None
    lease = bench.running()
    bench.create(training("digits-mlp"))
    assert waited_for("quadratic") == lease.job_id
    bench.finish(lease)
    assert waited_for("quadratic") is None
