"""Turns requests into jobs. Requests that arrive together are resolved one by one and written together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from app.auth import Caller
from app.http.problems import Problem
from app.jobs import kinds
from app.jobs.data import refuse_missing_data
from app.jobs.documents import job_documents
from app.jobs.kinds import AnyRequest
from app.jobs.room import refuse_too_large
from app.jobs.schemas import Job
from app.settings import Settings
from app.store import idempotency, insertion, keys
from app.store.errors import IdempotencyInFlight, RowLocked
from app.store.families import DeclaredFamilies
from app.store.idempotency import Answer, KeyedRequest
from app.store.jobs import JobRepository
from app.store.registry import Registry
from app.store.sessions import Database
from app.store.sql import LOCK_SECONDS, wait_for_locks
from app.store.tables import JobRow
from models.spec import JobSpec

MOST_TOGETHER = 64
"""Jobs per transaction. 64 specs are about 200 kB, and bound how long one client waits for another's."""


@dataclass(frozen=True, eq=False)
class Submission:
    """One request; two of the same words are two.

    spec: resolved beforehand, where that needs no database; or why it was refused. keyed: where it has an
    `Idempotency-Key`.
    """

    body: AnyRequest
    caller: Caller
    spec: JobSpec | Problem | None = None
    keyed: KeyedRequest | None = None


def prepared(body: AnyRequest, caller: Caller, settings: Settings, idempotency_key: str | None = None) -> Submission:
    """What can be refused without the database is refused here, and waits for nobody's transaction; unless it has an
    Idempotency-Key, which may have an answer from better times."""
    keyed = None if idempotency_key is None else _keyed(body, caller, idempotency_key)
    spec: JobSpec | Problem | None = None
    try:
        spec = kinds.resolved_alone(body, settings.backend)
        if spec is not None:
            refuse_missing_data(spec, settings)
            refuse_too_large(spec, settings.worker_memory_bytes)
    except Problem as problem:
        if keyed is None:
            raise
        spec = problem
    return Submission(body, caller, spec, keyed)


def _keyed(body: AnyRequest, caller: Caller, key: str) -> KeyedRequest:
    asked = idempotency.fingerprint("POST", "/jobs", body.model_dump(mode="json", exclude_unset=True))
    return KeyedRequest(caller.workspace, caller.api_key or "", key, asked)


Answers = Mapping[Submission, Answer | Exception]


def submit(
    database: Database, settings: Settings, submissions: Sequence[Submission], lock_seconds: float = LOCK_SECONDS
) -> Answers:
    """Writes the jobs in one transaction, which on Postgres is a single statement if there are neither API keys, whose
    jobs must be counted, nor Idempotency-Keys.

    A refused job does not affect the others. If a row stays locked, those that may be waiting for it are retried apart,
    so that the others wait only briefly.
    """
    by_key: dict[str | None, list[Submission]] = {}
    for each in submissions:
        by_key.setdefault(each.caller.api_key, []).append(each)
    single = by_key.keys() == {None} and all(each.keyed is None for each in submissions)
    while True:
        try:
            with database.autocommit_write() if single else database.write() as session:
                if not single:
                    wait_for_locks(session, lock_seconds)
                return create(session, settings, submissions)
        except idempotency.OvertakenError:
            continue
        except RowLocked as error:
            return _apart(database, settings, list(by_key.values()), error)
        # one of them meets a twin that does not end, or the database refused it; none was written
        except (IdempotencyInFlight, DataError, IntegrityError) as error:
            return _apart(database, settings, [[each] for each in submissions], error)


def _apart(database: Database, settings: Settings, parts: Sequence[Sequence[Submission]], error: Exception) -> Answers:
    """error: what they failed with together, and what they are told where they cannot be parted."""
    if len(parts) == 1:
        return dict.fromkeys(parts[0], error)
    answers: dict[Submission, Answer | Exception] = {}
    for part in parts:
        try:
            answers |= submit(database, settings, part, LOCK_SECONDS / 10)
        except Exception as its_own:  # noqa: BLE001  - the others have been written
            answers |= dict.fromkeys(part, its_own)
    return answers


def create(session: Session, settings: Settings, submissions: Sequence[Submission]) -> Answers:
    """The jobs of these, written within the caller's transaction, with the records of their Idempotency-Keys; or why
    there is none."""
    before = idempotency.stored(session, {each.keyed for each in submissions if each.keyed is not None})
    answers: dict[Submission, Answer | Exception] = {}
    fresh: list[Submission] = []
    for each in submissions:
        if each.keyed is not None and each.keyed in before:
            answers[each] = before[each.keyed]
        else:
            fresh.append(each)
    of_keys = {each.caller.api_key for each in fresh if each.caller.api_key is not None}
    quotas = keys.quotas(session, of_keys, settings.max_active_jobs)
    jobs: dict[Submission, JobRow] = {}
    firsts: dict[tuple[str, str, str], Submission] = {}  # by the name of their Idempotency-Key
    twins: list[Submission] = []
    for each in fresh:
        if each.keyed is not None and each.keyed.name in firsts:
            twins.append(each)
            continue
        try:
            job = _job(session, settings, each)
            if each.caller.api_key is not None:
                quotas[each.caller.api_key].take()
        except SQLAlchemyError:
            raise  # of the transaction that they share
        except Exception as error:  # noqa: BLE001  - whatever it is becomes the answer to this one
            answers[each] = error
        else:
            jobs[each] = job
            if each.keyed is not None:
                firsts[each.keyed.name] = each
    insertion.write(session, list(jobs.values()))
    # without what they wait for just now: the answer is stored, for those who send their key again
    documents = job_documents(session, list(jobs.values()))
    made = {each: _answer(document) for each, document in zip(jobs, documents, strict=True)}
    for each in twins:
        assert each.keyed is not None
        first = firsts[each.keyed.name]
        assert first.keyed is not None
        answers[each] = each.keyed.replay(made[first], first.keyed.fingerprint)
    idempotency.store(session, {each.keyed: answer for each, answer in made.items() if each.keyed is not None})
    return answers | made


def _job(session: Session, settings: Settings, submission: Submission) -> JobRow:
    """Not written yet. Raises what it is refused for."""
    spec, caller = submission.spec, submission.caller
    if isinstance(spec, Problem):
        raise spec
    jobs = JobRepository(session, caller.workspace)
    if spec is None:
        registry, declared = Registry(session, caller.workspace), DeclaredFamilies(session, caller.workspace)
        spec = kinds.resolved(submission.body, registry, declared, settings.backend)
        refuse_missing_data(spec, settings)
        refuse_too_large(spec, settings.worker_memory_bytes)
    return jobs.new(spec, submission.body.metadata, api_key=caller.api_key)


def _answer(job: Job) -> Answer:
    return Answer(202, {"Location": f"/jobs/{job.id}"}, job.model_dump_json().encode())
