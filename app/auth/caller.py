"""Who is calling: a key and what it may do, or anyone at all on a server without keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.store.tables import DEFAULT_WORKSPACE

Scope = Literal["read", "submit", "admin"]
ALL_SCOPES: frozenset[Scope] = frozenset(("read", "submit", "admin"))


@dataclass(frozen=True)
class Caller:
    """What an endpoint knows of whoever asks. It holds no secret, so it may be logged."""

    workspace: str
    api_key: str | None  # the key's id; None on a server without keys
    scopes: frozenset[Scope]


def unkeyed() -> Caller:
    """Everybody on a server without keys: the one workspace, all scopes."""
    return Caller(workspace=DEFAULT_WORKSPACE, api_key=None, scopes=ALL_SCOPES)
