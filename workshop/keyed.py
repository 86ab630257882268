"""Keys for a server that asks for them."""

from __future__ import annotations

from typing import Any

import httpx

from app.auth import Scope
from app.auth.issue import issue
from app.settings import Settings
from app.store.sessions import Database


def with_keys(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update={"auth": "on", **changes})


def make_key(settings: Settings, scope: Scope = "submit", workspace: str = "default", **given: Any) -> str:
    """The token of a new key."""
    with Database(settings.resolved_database_url) as database, database.write() as session:
        _, token = issue(session, name=f"{workspace} {scope}", scopes=[scope], workspace=workspace, **given)
    return token


def id_of(token: str) -> str:
    return f"key_{token.split('_')[1]}"


def bearing(url: str, token: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=30, headers={"Authorization": f"Bearer {token}"})
