"""How a new job is written: its row and its doorbell, in as few journeys to the database as there can be.

Straight to the tables, past SQLAlchemy's unit of work: it has much to weigh, and nothing depends on these two rows.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    Integer,
    String,
    bindparam,
    cast,
    extract,
    func,
    insert,
    inspect,
    literal_column,
    select,
)
from sqlalchemy.orm import Session, make_transient_to_detached

from app.store.keys import active_jobs
from app.store.sessions import now
from app.store.tables import Base, JobRow, OutboxRow, UtcDateTime

PRIORITY_STEP_SECONDS = 600.0  # one level of priority outweighs ten minutes of waiting; so nothing waits for ever

_COLUMNS = frozenset(inspect(JobRow).columns.keys())
_MOMENTS = frozenset(("created_at", "queue_key"))  # known once it is written
_JOBS, _OUTBOX = Base.metadata.tables[JobRow.__tablename__], Base.metadata.tables[OutboxRow.__tablename__]
_INSERT_JOB, _INSERT_DOORBELL = insert(_JOBS), insert(_OUTBOX)


def queue_key(moment: datetime, priority: int) -> int:
    """Where a job that is queued at `moment` stands: the lowest key is next. Age and priority in milliseconds.

    All jobs age at one speed, so their order never changes while they wait, and an index can hold it.
    """
    return round(moment.timestamp() * 1000) - _ahead(priority)


def _ahead(priority: int) -> int:
    return round(priority * PRIORITY_STEP_SECONDS * 1000)


def _insert_both(*conditions: ColumnElement[bool]) -> Executable:
    """A job and its doorbell in one statement of Postgres, which has one moment for all of it; it answers with that, or
    with nothing where the conditions do not hold.

    One journey to the database and not three, or five with those that begin and end a transaction.
    """
    moment = func.date_trunc(literal_column("'milliseconds'"), func.statement_timestamp(), type_=UtcDateTime())
    milliseconds = cast(extract("epoch", moment) * literal_column("1000"), BigInteger)
    made: dict[str, Any] = {"created_at": moment, "queue_key": milliseconds - bindparam("ahead", type_=BigInteger)}
    # Cast: what Postgres is given to select has no type of its own as what it is given to insert has.
    given = {name: cast(bindparam(name, type_=column.type), column.type) for name, column in _JOBS.c.items()}
    row = given | made
    job = insert(_JOBS).from_select(list(row), select(*row.values()).where(*conditions))
    made_job = job.returning(_JOBS.c.id, _JOBS.c.created_at).cte("job")
    doorbell = select(made_job.c.id, literal_column("1"), made_job.c.created_at)
    return insert(_OUTBOX).from_select(["job", "attempt", "created_at"], doorbell).returning(_OUTBOX.c.created_at)


_INSERT_BOTH = _insert_both()
# At most so many statements run at a time as there may be connections: that many are left to those not yet seen.
_OTHERS_MEANWHILE = cast(func.current_setting(literal_column("'max_connections'")), Integer)
_INSERT_BOTH_BELOW = _insert_both(
    active_jobs(bindparam("api_key", type_=String)).scalar_subquery()
    < bindparam("limit", type_=BigInteger) - _OTHERS_MEANWHILE
)


def write(session: Session, job: JobRow) -> JobRow:
    """Write a new, queued job, of which all is known but when; it belongs to the session then, as one that was read."""
    values = _given(job)
    if session.get_bind().dialect.name == "postgresql":
        moment = session.execute(_INSERT_BOTH, values | {"ahead": _ahead(job.priority)}).scalar_one()
    else:
        moment = now(session)
        at = {"created_at": moment, "queue_key": queue_key(moment, job.priority)}
        session.execute(_INSERT_JOB, values | at)
        session.execute(_INSERT_DOORBELL, {"job": job.id, "attempt": 1, "created_at": moment})
    return _written(session, job, moment)


def write_below(session: Session, job: JobRow, limit: int) -> JobRow | None:
    """As `write`, on Postgres and without a lock, while its key has so few active jobs that all that is being written
    at the same moment does not reach `limit` (decision 0028); else None, and nothing is written. On SQLite always
    None."""
    if session.get_bind().dialect.name != "postgresql":
        return None  # its writers come one after another: under the lock that they need anyway, jobs are counted
    more = {"ahead": _ahead(job.priority), "limit": limit}
    moment = session.execute(_INSERT_BOTH_BELOW, _given(job) | more).scalar_one_or_none()
    return None if moment is None else _written(session, job, moment)


def _given(job: JobRow) -> dict[str, Any]:
    for column in _COLUMNS - vars(job).keys():
        setattr(job, column, None)  # known, so never asked for
    return {column: getattr(job, column) for column in _COLUMNS - _MOMENTS}


def _written(session: Session, job: JobRow, moment: datetime) -> JobRow:
    job.created_at, job.queue_key = moment, queue_key(moment, job.priority)
    make_transient_to_detached(job)
    session.add(job)
    return job
