"""Making a key: its token is returned once, and its SHA-256 stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from app.auth import tokens
from app.auth.caller import Scope, with_lesser
from app.store.ids import new_id
from app.store.keys import KeyRepository
from app.store.tables import DEFAULT_WORKSPACE, KeyRow


def issue(
    session: Session,
    *,
    name: str,
    scopes: Sequence[Scope],
    workspace: str = DEFAULT_WORKSPACE,
    expires_at: datetime | None = None,
    max_active_jobs: int | None = None,
    secret: str | None = None,
) -> tuple[KeyRow, str]:
    """The key and its token. Scopes are stored with those that they hold. `secret`: default a random one."""
    key_id = new_id("key")
    token = tokens.token_of(key_id, tokens.new_secret() if secret is None else secret)
    row = KeyRepository(session, workspace).create(
        key_id,
        tokens.sha256_of(token),
        name=name,
        scopes=with_lesser(scopes),
        expires_at=expires_at,
        max_active_jobs=max_active_jobs,
    )
    return row, token
