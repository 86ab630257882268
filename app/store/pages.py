"""Keyset pages, newest first unless told, with opaque cursors that only fit the list that gave them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.store.errors import BadCursor

RowT = TypeVar("RowT")


@dataclass(frozen=True)
class Page(Generic[RowT]):
    rows: list[RowT]
    has_more: bool
    next: str | None


def page_of(
    session: Session,
    query: Select[RowT],
    key: InstrumentedAttribute[str],
    limit: int,
    after: str | None,
    listing: list[Any],
    *,
    rising: bool = False,
) -> Page[RowT]:
    """One page of `query` by falling `key`, or by rising. `listing` names the list and its filters: a cursor of
    another is bad."""
    if after is not None:
        position = _open_cursor(after, listing)
        query = query.where(key > position if rising else key < position)
    rows = list(session.scalars(query.order_by(key.asc() if rising else key.desc()).limit(limit + 1)))
    has_more = len(rows) > limit
    rows = rows[:limit]
    return Page(rows, has_more, _cursor(getattr(rows[-1], key.key), listing) if has_more else None)


def _cursor(position: str, listing: list[Any]) -> str:
    return base64.urlsafe_b64encode(_digest(position, listing) + position.encode()).decode().rstrip("=")


def _open_cursor(cursor: str, listing: list[Any]) -> str:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        position = raw[8:].decode()
    except (binascii.Error, ValueError) as error:
        raise BadCursor from error
    if raw[:8] != _digest(position, listing):
        raise BadCursor
    return position


def _digest(position: str, listing: list[Any]) -> bytes:
    # Against mistakes, not against forgery: a cursor shows nothing that its owner could not list.
    text = json.dumps([position, listing], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()[:8]
