"""Jobs that are asked for together: each has its own answer, and none pays for another's fault."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import uuid4

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
from app.jobs.kinds import JobRequest
from app.jobs.submission import Answers, Submission, submit
from app.settings import Settings
from app.store import outbox
from app.store.errors import DatabaseUnavailable, IdempotencyConflict, IdempotencyInFlight, QuotaExceeded, RowLocked
from app.store.idempotency import Answer
from app.store.jobs import JobRepository
from app.store.sessions import Database
from app.store.tables import KeyRow
from workshop.serving import serving

pytestmark = pytest.mark.both_databases

BODY: TypeAdapter[Any] = TypeAdapter(JobRequest)


def asked(caller: Caller | None = None, **changes: Any) -> Submission:
    body = BODY.validate_python({"kind": "meta_train", "family": "quadratic"} | changes)
    return Submission(body, caller or unkeyed())


def once(key: str, caller: Caller | None = None, **changes: Any) -> Submission:
    """With an Idempotency-Key, as the endpoint prepares it."""
    body = BODY.validate_python({"kind": "meta_train", "family": "quadratic"} | changes)
    return submission.prepared(body, caller or unkeyed(), Settings(), key)


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

    def count(number: int, caller: Caller | None, *, idempotent: bool = False) -> int:
        asking = [once(str(uuid4()), caller) if idempotent else asked(caller) for _ in range(number)]
        statements.clear()
        submit(database, settings, asking)
        return len([each for each in statements if not each.startswith(("BEGIN", "PRAGMA"))])

    @event.listens_for(database.engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    caller = keyed(database, limit=1000)  # so few jobs that the queue is read anew for each answer, by two statements
    assert count(1, None) == count(9, None) == (4 if database.is_sqlite else 3)
    assert count(1, caller) == count(9, caller) == 6
    assert count(1, None, idempotent=True) == count(9, None, idempotent=True) == 6
    assert count(1, caller, idempotent=True) == count(9, caller, idempotent=True) == 8


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
    uneven = asked(recipe={"horizon": 100, "unroll_steps": 30})
    for body, code in ((uneven.body, "invalid_request"), (large.body, "job_too_large")):
        with pytest.raises(Problem) as refused:
            submission.prepared(body, unkeyed(), small)
        assert refused.value.code == code


def test_with_an_idempotency_key_in_company(database: Database, settings: Settings) -> None:
    """New ones, twins, a conflict, refusals and requests without a key: each is told what it would be told alone."""
    caller = keyed(database, limit=9)
    [old] = submit(database, settings, [once("old")]).values()
    first, twin, other = once("a"), once("a"), once("a", seed=5)
    wrong, late, plain, theirs = once("wrong", family="cubic"), once("old"), asked(), once("a", caller)
    answers = submit(database, settings, [first, plain, twin, wrong, other, late, theirs])
    jobs = [made(answers[each])["id"] for each in (first, plain, theirs)]
    assert len(set(jobs)) == 3
    assert isinstance(old, Answer)
    assert answers[late] == replace(old, replayed=True)
    assert answers[twin] == replace(answers[first], replayed=True)  # type: ignore[type-var]
    assert isinstance(answers[other], IdempotencyConflict)
    assert isinstance(answers[wrong], Problem)
    assert answers[wrong].code == "unknown_family"
    assert stored(database).keys() == {*jobs, json.loads(old.body)["id"]}
    again = submit(database, settings, [twin, other, wrong, theirs])
    assert again[twin] == answers[twin]
    assert [type(again[each]) for each in (other, wrong)] == [IdempotencyConflict, Problem], "a refusal is not stored"
    assert json.loads(again[theirs].body)["id"] == jobs[2]  # type: ignore[union-attr]


def test_an_answer_from_better_times_is_given_again(database: Database, settings: Settings) -> None:
    """Also where the same request would be refused by now, for its quota or for what the server no longer holds."""
    caller = keyed(database, limit=1)
    [first] = submit(database, settings, [once("k", caller)]).values()
    assert isinstance(first, Answer)
    small = settings.model_copy(update={"worker_memory_bytes": 1})
    repeated = submission.prepared(once("k", caller).body, caller, small, "k")
    assert isinstance(repeated.spec, Problem)
    fresh = once("fresh", caller)
    answers = submit(database, small, [repeated, fresh])
    assert answers[repeated] == replace(first, replayed=True)
    assert isinstance(answers[fresh], QuotaExceeded)
    assert len(stored(database)) == 1


def test_twins_over_two_processes_create_one_job(postgres_url: str, settings: Settings) -> None:
    def post(number: int) -> tuple[str, bool]:
        mine = [asked(), once(f"key {number % 5}")]
        answer = submit(databases[number % 2], settings, mine)[mine[1]]
        return made(answer)["id"], isinstance(answer, Answer) and answer.replayed

    with Database(postgres_url) as one, Database(postgres_url) as two, ThreadPoolExecutor(8) as threads:
        databases = (one, two)
        found = list(threads.map(post, range(40)))
        assert len(stored(one)) == 5 + 40
    assert len({job for job, _ in found}) == 5
    assert sum(not replayed for _, replayed in found) == 5


def test_a_twin_that_hangs_keeps_nobody_else_waiting(postgres_url: str, settings: Settings) -> None:
    with Database(postgres_url) as database:
        asking = [asked(), once("k"), once("other")]
        with database.write() as session:  # another process was stopped after it wrote its record
            submission.create(session, settings, [once("k")])
            answers = submit(database, settings, asking, lock_seconds=0.2)
        assert [type(answers[each]) for each in asking] == [Answer, IdempotencyInFlight, Answer]
        assert len(stored(database)) == 3
        assert submit(database, settings, asking[1:2])[asking[1]].replayed  # type: ignore[union-attr]
