"""Who is calling: a key and what it may do, or anyone at all on a server without keys."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from app.store.tables import DEFAULT_WORKSPACE

Scope = Literal["read", "submit", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "submit", "admin")  # each holds those before it
ALL_SCOPES: frozenset[Scope] = frozenset(SCOPES)

_PUBLIC = frozenset(("/", "/docs", "/openapi.json", "/healthz", "/readyz", "/favicon.svg", "/favicon.ico"))
_PUBLIC_FOLDERS = ("/docs/", "/static/")
_OF_ADMINS = frozenset(("/keys", "/doctor"))
_FETCH = re.compile("/datasets/[^/]+/fetch")  # it fills the server's disk
_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))


@dataclass(frozen=True)
class Caller:
    """What an endpoint knows of whoever asks. It holds no secret, so it may be logged."""

    workspace: str
    api_key: str | None  # the key's id; None on a server without keys
    scopes: frozenset[Scope]


def unkeyed() -> Caller:
    """Everybody on a server without keys: the one workspace, all scopes."""
    return Caller(workspace=DEFAULT_WORKSPACE, api_key=None, scopes=ALL_SCOPES)


def with_lesser(scopes: Iterable[Scope]) -> list[Scope]:
    """The scopes and those that they hold: whoever may submit may look at what became of it."""
    highest = max(SCOPES.index(scope) for scope in scopes)
    return list(SCOPES[: highest + 1])


def required_scope(method: str, path: str) -> Scope | None:
    """What a request needs; None for what a keyed server shows to anyone. A path that nobody thought of needs a key."""
    if method in _SAFE_METHODS and (path in _PUBLIC or path.startswith(_PUBLIC_FOLDERS)):
        return None
    if path in _OF_ADMINS or path.startswith("/keys/") or (method == "POST" and _FETCH.fullmatch(path)):
        return "admin"
    return "read" if method in _SAFE_METHODS else "submit"
