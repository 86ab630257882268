"""Answers to POSTs with an `Idempotency-Key`, stored in the transaction of what they created and kept 24 hours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import delete, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.store.errors import IdempotencyConflict, IdempotencyInFlight
from app.store.sessions import Database
from app.store.sql import LOCK_SECONDS, clock, insert_if_absent, is_lock_timeout, wait_for_locks
from app.store.sqlite import BUSY_SECONDS
from app.store.tables import DEFAULT_WORKSPACE, IdempotencyRow

KEPT_SECONDS = 24 * 3600.0
WAIT_SECONDS = BUSY_SECONDS  # how long a twin waits for the first request with its key


@dataclass(frozen=True)
class Answer:
    """A response as it was first given; `replayed` when it was found under its key."""

    status_code: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    replayed: bool = False


def fingerprint(method: str, path: str, body: Any) -> str:
    """SHA-256 of a request: method, path and the parsed body in canonical JSON, so that spacing makes no difference."""
    text = json.dumps([method, path, body], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def once(
    database: Database,
    key: str | None,
    request_fingerprint: str,
    create: Callable[[Session], Answer],
    *,
    workspace: str = DEFAULT_WORKSPACE,
    api_key: str = "",
    wait_seconds: float = WAIT_SECONDS,
) -> Answer:
    """Run `create` in a write transaction, unless `key` has an answer: then that, marked `replayed`.

    `key` belongs to the API key that used it ("" on a server without keys). What `create` raises is not stored; without
    a key `create` simply runs. Raises IdempotencyConflict for a key of another request, IdempotencyInFlight when the
    first request has not ended within `wait_seconds`; on SQLite that is DatabaseBusy, as for any other writer.
    """
    if key is None:
        with database.write() as session:
            return create(session)
    with database.write(wait_seconds) as session:
        try:
            wait_for_locks(session, wait_seconds)
            stored = _begin(session, workspace, api_key, key, request_fingerprint)
        except OperationalError as error:  # on SQLite, whose one writer may be anybody, it is DatabaseBusy above
            if is_lock_timeout(error):
                raise IdempotencyInFlight(key) from error
            raise
        if stored is not None:
            return stored
        wait_for_locks(session, LOCK_SECONDS)
        answer = create(session)
        session.execute(
            update(IdempotencyRow)
            .where(IdempotencyRow.workspace == workspace, IdempotencyRow.api_key == api_key, IdempotencyRow.key == key)
            .values(status_code=answer.status_code, headers=answer.headers, body=answer.body)
        )
        return answer


def _begin(session: Session, workspace: str, api_key: str, key: str, request_fingerprint: str) -> Answer | None:
    """Insert the key first. Its twin waits here until this transaction ends, then finds the row."""
    purge(session)  # here, where a key is used: then nobody need think of it, and no old answer is replayed
    values: dict[str, Any] = {"status_code": 0, "headers": {}, "body": b"", "created_at": clock()}
    named = {"workspace": workspace, "api_key": api_key, "key": key}
    if insert_if_absent(session, IdempotencyRow, **named, fingerprint=request_fingerprint, **values):
        return None
    row = session.get_one(IdempotencyRow, (workspace, api_key, key), populate_existing=True)
    if row.fingerprint != request_fingerprint:
        raise IdempotencyConflict(key)
    return replace(Answer(row.status_code, row.headers, row.body), replayed=True)


def purge(session: Session) -> int:
    """Forget keys older than 24 hours; how many there were."""
    purged = session.execute(delete(IdempotencyRow).where(IdempotencyRow.created_at < clock(-KEPT_SECONDS)))
    return int(purged.rowcount)  # type: ignore[attr-defined]
