"""How new jobs are written: their rows and their doorbells, in as few journeys to the database as there can be.

Straight to the tables, past SQLAlchemy's unit of work: it has much to weigh, and nothing depends on these rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import insert, inspect, text
from sqlalchemy.orm import Session, make_transient_to_detached
from sqlalchemy.sql.expression import TextualSelect

from app.store.sessions import now
from app.store.tables import Base, JobRow, OutboxRow, UtcDateTime

PRIORITY_STEP_SECONDS = 600.0  # one level of priority outweighs ten minutes of waiting; so nothing waits for ever

_COLUMNS = frozenset(inspect(JobRow).columns.keys())
_MOMENTS = frozenset(("created_at", "queue_key"))  # known once it is written
_JOBS, _OUTBOX = Base.metadata.tables[JobRow.__tablename__], Base.metadata.tables[OutboxRow.__tablename__]
_INSERT_JOBS, _INSERT_DOORBELLS = insert(_JOBS), insert(_OUTBOX)


def queue_key(moment: datetime, priority: int) -> int:
    """Where a job that is queued at `moment` stands: the lowest key is next. Age and priority in milliseconds.

    All jobs age at one speed, so their order never changes while they wait, and an index can hold it.
    """
    return round(moment.timestamp() * 1000) - _ahead(priority)


def _ahead(priority: int) -> int:
    return round(priority * PRIORITY_STEP_SECONDS * 1000)


def _insert_all() -> TextualSelect:
    """Jobs and their doorbells in one statement of Postgres, which has one moment for all of them and answers with it.

    One journey to the database and not three, or five with those that begin and end a transaction. The rows come as
    one JSON document, so however many there are the statement is the same one, prepared once a connection. In it
    `queue_key` is how far a job is ahead by its priority, below zero.
    """
    made = {
        "created_at": "moment.at",
        "queue_key": "CAST(extract(epoch FROM moment.at) * 1000 AS bigint) + r.queue_key",
        "started_at": "CASE r.status WHEN 'running' THEN moment.at END",
    }
    columns = [column.name for column in _JOBS.c]
    values = [made.get(name, f"r.{name}") for name in columns]
    statement = f"""
        WITH moment AS (SELECT date_trunc('milliseconds', statement_timestamp()) AS at),
        job AS (
            INSERT INTO {_JOBS.name} ({", ".join(columns)}) SELECT {", ".join(values)}
            FROM json_populate_recordset(CAST(NULL AS {_JOBS.name}), CAST(:rows AS json)) AS r, moment
            RETURNING id, status, created_at
        ), doorbell AS (
            INSERT INTO {_OUTBOX.name} (job, attempt, created_at)
            SELECT id, 1, created_at FROM job WHERE status = 'queued'
        )
        SELECT at AS created_at FROM moment
    """
    return text(statement).columns(created_at=UtcDateTime())


_INSERT_ALL = _insert_all()


def write(session: Session, jobs: Sequence[JobRow]) -> None:
    """Write new jobs, of which all is known but when; they belong to the session then, as those that were read. Those
    that are queued have a doorbell; one that no worker runs is running.

    In Postgres a single statement; so with `Database.autocommit_write` a transaction of its own.
    """
    if not jobs:
        return
    session.flush()  # what they refer to
    rows = [_given(job) for job in jobs]
    if session.get_bind().dialect.name == "postgresql":
        for row, job in zip(rows, jobs, strict=True):
            row["queue_key"] = -_ahead(job.priority)
        document = orjson.dumps(rows).decode()
        moment = session.connection().execute(_INSERT_ALL, {"rows": document}).scalars().all()[0]
    else:
        moment = now(session)
        for row, job in zip(rows, jobs, strict=True):
            row |= {"created_at": moment, "queue_key": queue_key(moment, job.priority)}
            row["started_at"] = moment if job.status == "running" else None
        session.execute(_INSERT_JOBS, rows)
        queued = [job for job in jobs if job.status == "queued"]
        if queued:
            session.execute(_INSERT_DOORBELLS, [{"job": job.id, "attempt": 1, "created_at": moment} for job in queued])
    for job in jobs:
        job.created_at, job.queue_key = moment, queue_key(moment, job.priority)
        job.started_at = moment if job.status == "running" else None
        make_transient_to_detached(job)
    session.add_all(jobs)


def _given(job: JobRow) -> dict[str, Any]:
    for column in _COLUMNS - vars(job).keys():
        setattr(job, column, None)  # known, so never asked for
    return {column: getattr(job, column) for column in _COLUMNS - _MOMENTS}
