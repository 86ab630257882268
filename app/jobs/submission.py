"""Turns requests into jobs. Requests that arrive together are resolved one by one and written together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from app.auth import Caller
from app.jobs.documents import job_documents
from app.jobs.resolve import evaluate_spec, meta_train_spec, refuse_too_large
from app.jobs.schemas import EvaluateRequest, Job, MetaTrainRequest
from app.settings import Settings
from app.store import insertion, keys
from app.store.errors import RowLocked
from app.store.idempotency import Answer
from app.store.jobs import JobRepository
from app.store.registry import Registry
from app.store.sessions import Database
from app.store.sql import LOCK_SECONDS, wait_for_locks
from app.store.tables import JobRow
from models.spec import EvaluateSpec, MetaTrainSpec

MOST_TOGETHER = 64
"""Jobs per transaction. 64 specs are about 200 kB, and bound how long one client waits for another's."""


@dataclass(frozen=True, eq=False)
class Submission:
    """One request; two of the same words are two. `spec`: resolved beforehand, where that needs no database."""

    body: MetaTrainRequest | EvaluateRequest
    caller: Caller
    spec: MetaTrainSpec | None = None


def prepared(body: MetaTrainRequest | EvaluateRequest, caller: Caller, settings: Settings) -> Submission:
    """What can be refused without the database is refused here, and waits for nobody's transaction."""
    return Submission(body, caller, _trained(body, settings) if isinstance(body, MetaTrainRequest) else None)


Answers = Mapping[Submission, Answer | Exception]


def submit(
    database: Database, settings: Settings, submissions: Sequence[Submission], lock_seconds: float = LOCK_SECONDS
) -> Answers:
    """Writes the jobs in one transaction, which on Postgres is a single statement if no key's jobs must be counted.

    A refused job does not affect the others. If a key's row stays locked, the keys are retried one by one, so that the
    others wait only briefly.
    """
    by_key: dict[str | None, list[Submission]] = {}
    for each in submissions:
        by_key.setdefault(each.caller.api_key, []).append(each)
    counted = by_key.keys() != {None}
    try:
        with database.write() if counted else database.write_one() as session:
            if counted:
                wait_for_locks(session, lock_seconds)
            return create(session, settings, submissions)
    except RowLocked as error:
        return _apart(database, settings, list(by_key.values()), error)
    except (DataError, IntegrityError) as error:  # the database refused one of them, and wrote none
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
    """The jobs of these, written within the caller's transaction; or why there is none."""
    limit, alone = settings.max_active_jobs, len(submissions) == 1
    of_keys = set() if alone else {each.caller.api_key for each in submissions if each.caller.api_key is not None}
    quotas = keys.quotas(session, of_keys, limit)
    answers: dict[Submission, Answer | Exception] = {}
    jobs: dict[Submission, JobRow] = {}
    for each in submissions:
        try:
            job = _job(session, settings, each)
            if alone:
                keys.admit_job(session, each.caller.api_key, limit)  # which waits for no other that is alone
            elif each.caller.api_key is not None:
                quotas[each.caller.api_key].take()
        except SQLAlchemyError:
            raise  # of the transaction that they share
        except Exception as error:  # noqa: BLE001  - whatever it is becomes the answer to this one
            answers[each] = error
        else:
            jobs[each] = job
    insertion.write(session, list(jobs.values()))
    # without what they wait for just now: the answer is stored, for those who send their key again
    documents = job_documents(session, list(jobs.values()))
    return answers | {each: _answer(document) for each, document in zip(jobs, documents, strict=True)}


def _job(session: Session, settings: Settings, submission: Submission) -> JobRow:
    """Not written yet. Raises what it is refused for."""
    body, caller = submission.body, submission.caller
    jobs = JobRepository(session, caller.workspace)
    spec: MetaTrainSpec | EvaluateSpec
    if isinstance(body, MetaTrainRequest):
        spec = submission.spec or _trained(body, settings)
    else:
        spec = evaluate_spec(body, Registry(session, caller.workspace), jobs, settings.backend)
        refuse_too_large(spec, settings.worker_memory_bytes)
    return jobs.new(spec, body.metadata, api_key=caller.api_key)


def _trained(body: MetaTrainRequest, settings: Settings) -> MetaTrainSpec:
    spec = meta_train_spec(body, settings.backend)
    refuse_too_large(spec, settings.worker_memory_bytes)
    return spec


def _answer(job: Job) -> Answer:
    return Answer(202, {"Location": f"/jobs/{job.id}"}, job.model_dump_json().encode())
