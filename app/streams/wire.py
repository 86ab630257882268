"""How an event travels in a Redis stream: the entry's id is the event's, its fields are `kind`, `data` (JSON), and
`at`, when it was sent (milliseconds since 1970 by the worker's clock)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import cast

from app.store.events import EventId, EventKind, JobEvent

_PREFIX = "gradsmith:events:"


def stream_key(job_id: str) -> str:
    return _PREFIX + job_id


def job_of(key: str) -> str:
    return key.removeprefix(_PREFIX)


def encode(event: JobEvent) -> dict[str, str]:
    return {"kind": event.kind, "data": event.text, "at": str(time.time_ns() // 1_000_000)}


def decode(entry_id: str, fields: Mapping[str, str]) -> JobEvent:
    """The event that `encode` wrote. Raises KeyError or BadEventId for an entry that is none."""
    return JobEvent(EventId.parse(entry_id), cast(EventKind, fields["kind"]), fields["data"])


def lag_seconds(fields: Mapping[str, str]) -> float | None:
    """How long ago the entry was sent, if it says so; never below 0, for two machines' clocks differ."""
    sent = fields.get("at", "")
    return max(0.0, time.time() - int(sent) / 1000) if sent.isdecimal() else None
