"""Answers to POSTs with an `Idempotency-Key`, stored in the transaction of what they created and kept 24 hours.

The record is written last, with the answer in it. So whoever has the same key in another transaction waits for no more
than a commit, finds that it was overtaken, and takes back what it did.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import bindparam, delete, select, tuple_
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.store.errors import IdempotencyConflict, IdempotencyInFlight
from app.store.sessions import Database
from app.store.sql import LOCK_SECONDS, clock, is_lock_timeout, wait_for_locks
from app.store.tables import Base, IdempotencyRow

KEPT_SECONDS = 24 * 3600.0

_RECORDS = Base.metadata.tables[IdempotencyRow.__tablename__]
_NAME = (_RECORDS.c.workspace, _RECORDS.c.api_key, _RECORDS.c.key)
_ANSWER = ("fingerprint", "status_code", "headers", "body", "created_at")
_OF_NAMES = select(*_NAME, _RECORDS.c.fingerprint, _RECORDS.c.status_code, _RECORDS.c.headers, _RECORDS.c.body).where(
    tuple_(*_NAME).in_(bindparam("names", expanding=True)), _RECORDS.c.created_at >= clock(-KEPT_SECONDS)
)


@dataclass(frozen=True)
class Answer:
    """A response as it was first given; `replayed` when it was found under its key."""

    status_code: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    replayed: bool = False


@dataclass(frozen=True)
class KeyedRequest:
    """A request with an `Idempotency-Key`, which belongs to the API key that used it ("" on a server without keys)."""

    workspace: str
    api_key: str
    key: str
    fingerprint: str

    @property
    def name(self) -> tuple[str, str, str]:
        """What no two requests with different answers share."""
        return self.workspace, self.api_key, self.key

    def replay(self, answer: Answer, fingerprint: str) -> Answer | IdempotencyConflict:
        """What this request is told where its key has an answer already, to a request with that fingerprint."""
        return replace(answer, replayed=True) if fingerprint == self.fingerprint else IdempotencyConflict(self.key)


class OvertakenError(Exception):
    """Another transaction stored an answer under the same key meanwhile. Roll back and begin anew: `stored` has it."""


def fingerprint(method: str, path: str, body: Any) -> str:
    """SHA-256 of a request: method, path and the parsed body in canonical JSON, so that spacing makes no difference."""
    text = json.dumps([method, path, body], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def stored(session: Session, requests: Collection[KeyedRequest]) -> dict[KeyedRequest, Answer | IdempotencyConflict]:
    """Those of `requests` whose key was used before, with what they are told."""
    if not requests:
        return {}
    names = sorted({request.name for request in requests})
    found = {tuple(row[:3]): row[3:] for row in session.execute(_OF_NAMES, {"names": names})}
    return {
        request: request.replay(Answer(*found[request.name][1:]), found[request.name][0])
        for request in requests
        if request.name in found
    }


def store(session: Session, answers: Mapping[KeyedRequest, Answer]) -> None:
    """Writes the records of requests that had none, or none of the last 24 hours. It ends a transaction: see above.

    Raises OvertakenError when one has a record by now, and IdempotencyInFlight when another transaction has written one
    and neither commits nor rolls back within the time that `wait_for_locks` gave.
    """
    if not answers:
        return
    insert = postgresql_insert if session.get_bind().dialect.name == "postgresql" else sqlite_insert
    statement = insert(_RECORDS).values(created_at=clock())
    new = {name: statement.excluded[name] for name in _ANSWER}
    statement = statement.on_conflict_do_update(
        index_elements=_NAME, set_=new, where=_RECORDS.c.created_at < clock(-KEPT_SECONDS)
    )
    rows: list[dict[str, Any]] = [
        {
            "workspace": request.workspace,
            "api_key": request.api_key,
            "key": request.key,
            "fingerprint": request.fingerprint,
            "status_code": answer.status_code,
            "headers": answer.headers,
            "body": answer.body,
        }
        # in one order everywhere: two transactions never wait for each other
        for request, answer in sorted(answers.items(), key=lambda item: item[0].name)
    ]
    try:
        written = session.execute(statement.returning(_RECORDS.c.key), rows).all()
    except OperationalError as error:
        if is_lock_timeout(error):
            raise IdempotencyInFlight(rows[0]["key"]) from error
        raise
    if len(written) < len(rows):
        raise OvertakenError


def once(
    database: Database,
    request: KeyedRequest | None,
    create: Callable[[Session], Answer],
    *,
    lock_seconds: float = LOCK_SECONDS,
) -> Answer:
    """Run `create` in a write transaction, unless `request` has an answer: then that, marked `replayed`.

    `create` has no effects but those of its transaction: it may be rolled back and run again. What it raises is not
    stored; without a key it simply runs. Raises IdempotencyConflict for a key of another request, and
    IdempotencyInFlight as `store`.
    """
    while True:
        try:
            with database.write() as session:
                wait_for_locks(session, lock_seconds)
                if request is None:
                    return create(session)
                match stored(session, [request]).get(request):
                    case Answer() as found:
                        return found
                    case IdempotencyConflict() as conflict:
                        raise conflict
                answer = create(session)
                store(session, {request: answer})
                return answer
        except OvertakenError:
            continue


def purge(session: Session) -> int:
    """Forget keys older than 24 hours; how many there were."""
    purged = session.execute(delete(IdempotencyRow).where(IdempotencyRow.created_at < clock(-KEPT_SECONDS)))
    return int(purged.rowcount)  # type: ignore[attr-defined]
