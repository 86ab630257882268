"""Jobs that are asked for together: each has its own answer, and none pays for another's fault."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter
from sqlalchemy import event, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.auth import Caller, unkeyed
from app.auth.issue import issue
from app.http.problems import Problem
from app.jobs import submission
from app.jobs.schemas import JobRequest
from app.jobs.submission import Answers, Submission, submit
from app.settings import Settings
from app.store import outbox
from app.store.errors import DatabaseUnavailable, QuotaExceeded, RowLocked
from app.store.idempotency import Answer
from app.store.jobs import JobRepository
from app.store.sessions import Database
from app.store.tables import KeyRow
from workshop.serving import serving

BODY: TypeAdapter[Any] = TypeAdapter(JobRequest)


def asked(caller: Caller | None = None, **changes: Any) -> Submission:
    body = BODY.validate_python({"kind": "meta_train", "family": "quadratic"} | changes)
    return Submission(body, caller or unkeyed())


def keyed(database: Database, limit: int) -> Caller:
    with database.write() as session:
        key: KeyRow = issue(session, name="k", scopes=["submit"], max_active_jobs=limit)[0]
        return Caller("default", key.id, frozenset({"submit"}))


def stored(database: Database) -> dict[str, dict[str, str]]:
    """As `labels_of`, where no dispatcher runs: each job has its doorbell."""
    found = labels_of(database)
    with database.read() as session:
        assert outbox.waiting(session) == len(found)
    return found


def labels_of(database: Database) -> dict[str, dict[str, str]]:
    """Of all jobs, by their ids."""
    with database.read() as session:
        return {row.id: row.labels for row in JobRepository(session).page(limit=100).rows}


def made(answer: Answer | Exception) -> dict[str, Any]:
    assert isinstance(answer, Answer), answer
    document: dict[str, Any] = json.loads(answer.body)
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/jobs/{document['id']}")
    return document


def test_each_has_its_own_answer(database: Database, settings: Settings) -> None:
    caller = keyed(database, limit=2)
    fine = [asked(caller, metadata={"is": f"number {number} \N{SNOWMAN} \" \\ '"}) for number in range(3)]
    wrong = [asked(caller, family="cubic"), asked(optimizer="cubic@latest", kind="evaluate", family=None)]
    large = asked(caller, evaluation={"test_tasks": 65_536, "horizon": 10_000})
    twin = Submission(fine[0].body, unkeyed())
    small = settings.model_copy(update={"worker_memory_bytes": 8 * 2**30, "max_active_jobs": 1})
    answers = submit(database, small, [fine[0], *wrong, large, fine[1], fine[2], twin])
    jobs = [made(answers[each]) for each in (fine[0], fine[1], twin)]
    assert [job["metadata"] for job in jobs] == [dict(each.body.metadata) for each in (*fine[:2], twin)]
    assert stored(database) == {job["id"]: job["metadata"] for job in jobs}
    assert sorted(job["queue_position"] for job in jobs) == [0, 1, 2]
    codes = [answer.code for each in (*wrong, large) if isinstance(answer := answers[each], Problem)]
    assert codes == ["unknown_family", "unknown_optimizer", "job_too_large"]
    refused = answers[fine[2]]
    assert isinstance(refused, QuotaExceeded)
    assert "2 queued" in str(refused), "what was refused took nobody's place"


def test_where_the_database_refuses_one_the_others_are_written(database: Database, settings: Settings) -> None:
    nowhere = Caller("nowhere", None, unkeyed().scopes)
    asking = [asked(), asked(nowhere), asked()]
    answers = submit(database, settings, asking)
    assert isinstance(answers[asking[1]], IntegrityError)
    assert stored(database).keys() == {made(answers[each])["id"] for each in (asking[0], asking[2])}


def test_a_key_that_somebody_has_locked_keeps_no_other_key_waiting(postgres_url: str, settings: Settings) -> None:
    with Database(postgres_url) as database:
        locked, free = keyed(database, limit=9), keyed(database, limit=9)
        asking = [asked(locked), asked(free), asked(locked), asked()]
        with database.write() as session:  # a process that stopped in the midst of it
            session.execute(select(KeyRow).where(KeyRow.id == locked.api_key).with_for_update())
            answers = submit(database, settings, asking, lock_seconds=0.2)
        assert [type(answers[each]) for each in asking] == [RowLocked, Answer, RowLocked, Answer]
        assert len(stored(database)) == 2
        assert made(submit(database, settings, asking[:1])[asking[0]])


def test_one_job_alone_waits_for_no_other_that_is_alone(postgres_url: str, settings: Settings) -> None:
    """As those with an Idempotency-Key are: else each would wait for the commit of the one before."""
    with Database(postgres_url) as database:
        caller = keyed(database, limit=100_000)
        one, two = asked(caller), [asked(caller), asked(caller)]
        with database.write() as session:
            first = submission.create(session, settings, [asked(caller)])  # and does not end yet
            assert made(submit(database, settings, [one], lock_seconds=0.2)[one])
            assert {type(each) for each in submit(database, settings, two, lock_seconds=0.2).values()} == {RowLocked}
        assert len(stored(database)) == 1 + len(first)


def test_what_was_written_stays_answered_when_a_later_part_fails(
    postgres_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = submission.create

    def away(session: Session, settings: Settings, submissions: Sequence[Submission]) -> Answers:
        if [each.caller.api_key for each in submissions] == [locked.api_key]:
            raise DatabaseUnavailable("the database is away")
        return create(session, settings, submissions)

    monkeypatch.setattr(submission, "create", away)
    with Database(postgres_url) as database:
        locked, free = keyed(database, limit=9), keyed(database, limit=9)
        asking = [asked(free), asked(locked)]
        with database.write() as session:
            session.execute(select(KeyRow).where(KeyRow.id == locked.api_key).with_for_update())
            answers = submit(database, settings, asking, lock_seconds=0.2)
        assert [type(answers[each]) for each in asking] == [Answer, DatabaseUnavailable]
        assert stored(database).keys() == {made(answers[asking[0]])["id"]}


def test_together_they_cost_what_one_costs(database: Database, settings: Settings) -> None:
    statements: list[str] = []

    def count(number: int, caller: Caller | None) -> int:
        statements.clear()
        submit(database, settings, [asked(caller) for _ in range(number)])
        return len([each for each in statements if not each.startswith(("BEGIN", "PRAGMA"))])

    @event.listens_for(database.engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    caller = keyed(database, limit=1000)  # so few jobs that the queue is read anew for each answer, by two statements
    assert count(1, None) == count(9, None) == (4 if database.is_sqlite else 3)
    assert count(2, caller) == count(9, caller) == 6


def test_of_many_clients_each_gets_the_job_that_it_asked_for(app_settings: Settings, database: Database) -> None:
    def post(number: int) -> tuple[str, dict[str, str]]:
        with httpx.Client(base_url=url) as api:
            body = {"kind": "meta_train", "family": "quadratic", "metadata": {"number": str(number)}}
            answer = api.post("/jobs", json=body)
            document = answer.raise_for_status().json()
            assert answer.headers["Location"] == f"/jobs/{document['id']}"
            return document["id"], document["metadata"]

    with serving(app_settings) as url, ThreadPoolExecutor(16) as clients:
        answers = dict(clients.map(post, range(80)))
    assert sorted(int(labels["number"]) for labels in answers.values()) == list(range(80))
    assert labels_of(database) == answers


@pytest.mark.parametrize("together", [1, 3])
def test_a_key_that_is_gone_is_nobody_else_s_trouble(database: Database, settings: Settings, together: int) -> None:
    """Keys are revoked and not deleted; a database that somebody has tidied is one all the same."""
    gone = asked(Caller("default", "key_gone", unkeyed().scopes))
    others = [asked() for _ in range(together - 1)]
    answers = submit(database, settings, [gone, *others])
    assert isinstance(answers[gone], Exception)
    assert len(stored(database)) == together - 1


def test_what_needs_no_database_is_refused_without_it(settings: Settings) -> None:
    large = asked(evaluation={"test_tasks": 65_536, "horizon": 10_000})
    small = settings.model_copy(update={"worker_memory_bytes": 8 * 2**30})
    for body, code in ((asked(family="cubic").body, "unknown_family"), (large.body, "job_too_large")):
        with pytest.raises(Problem) as refused:
            submission.prepared(body, unkeyed(), small)
        assert refused.value.code == code
