"""How an event travels in a Redis stream: the entry's id is the event's, its fields are `kind` and `data` (JSON)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from app.store.events import Event, EventId, EventKind

_PREFIX = "gradsmith:events:"


def stream_key(job_id: str) -> str:
    return _PREFIX + job_id


def job_of(key: str) -> str:
    return key.removeprefix(_PREFIX)


def encode(event: Event) -> dict[str, str]:
    return {"kind": event.kind, "data": event.text}


def decode(entry_id: str, fields: Mapping[str, str]) -> Event:
    return Event(EventId.parse(entry_id), cast(EventKind, fields["kind"]), json.loads(fields["data"]))
