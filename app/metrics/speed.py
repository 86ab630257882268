"""How fast each worker is just now: a key in Redis for each, gone when its worker stops writing it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SPEED_SECONDS = 120  # one meta-step may take this long before its worker seems to stand still


def speed_key(worker: str) -> str:
    return f"gradsmith:speed:{worker}"


def speeds(connection: Any, workers: Sequence[str]) -> dict[str, float]:
    """Meta-steps per second of those `workers` that train. Raises redis.RedisError."""
    if not workers:
        return {}
    found = connection.mget([speed_key(worker) for worker in workers])
    return {worker: float(value) for worker, value in zip(workers, found, strict=True) if value is not None}
