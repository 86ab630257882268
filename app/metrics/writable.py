"""Whether Redis accepts writes. One that is full, a replica or without a working disk answers PING all the same."""

from __future__ import annotations

import redis
from redis.exceptions import ResponseError

WRITE = ("LPUSHX", "gradsmith:writable", "")
"""Appends to a list only where it exists, and this one never does: refused as every write is, and changes nothing."""

_REASONS = {
    "OOM": "is full (maxmemory) and refuses writes",
    "READONLY": "is a replica and refuses writes",
    "MISCONF": "cannot save to its disk and refuses writes",
    "NOREPLICAS": "has too few replicas and refuses writes",
    "NOPERM": "refuses writes of this user",
}
_CODES = {"OutOfMemoryError": "OOM", "ReadOnlyError": "READONLY", "NoPermissionError": "NOPERM"}


def try_write(client: redis.Redis) -> None:
    """Raises ResponseError when Redis refuses writes; RedisError or OSError when it does not answer."""
    client.execute_command(*WRITE)  # type: ignore[no-untyped-call]


def refusal(error: ResponseError) -> str:
    """Why a write was refused, as words that follow "Redis". They name no host and no folder."""
    said = str(error)
    # redis-py removes the code where it has a class for it
    code = next((code for code in _REASONS if said.startswith(code)), _CODES.get(type(error).__name__, ""))
    return _REASONS.get(code, "refuses writes")
