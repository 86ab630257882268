"""Ids that sort by age: a prefix and a UUIDv7 (RFC 9562), such as `job_0198f0c2a4b07e3f9d5c1b2a3d4e5f60`."""

from __future__ import annotations

import re
import secrets
import threading
import time
from typing import Literal

Prefix = Literal["job", "opt", "key"]

_lock = threading.Lock()
_last = 0  # the 60 time and counter bits of the id made last


def new_id(prefix: Prefix) -> str:
    """A new id. Within a process ids strictly increase, also within a millisecond and when the clock steps back."""
    global _last
    with _lock:
        # 48 bits of milliseconds, then 12 bits that count within one; they start in the lower half, with room to count.
        _last = max(_last + 1, (time.time_ns() // 1_000_000 << 12) | secrets.randbits(11))
        ticks = _last
    milliseconds, counter = ticks >> 12, ticks & 0xFFF
    value = (milliseconds << 80) | (0x7 << 76) | (counter << 64) | (0b10 << 62) | secrets.randbits(62)
    return f"{prefix}_{value:032x}"


def random_name() -> str:
    """12 characters that nobody else has."""
    return secrets.token_hex(6)


def is_id(prefix: Prefix, text: str) -> bool:
    """Whether `text` has the form of an id with this prefix; it says nothing of whether such a thing exists."""
    return re.fullmatch(rf"{prefix}_[0-9a-f]{{32}}", text) is not None
