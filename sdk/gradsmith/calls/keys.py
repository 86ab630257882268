"""API keys of your workspace."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from gradsmith.answers import items, nothing, record
from gradsmith.calls.base import M, Resource, call, given, listing, path
from gradsmith.programs import Call, Items
from gradsmith.types import Key


class Keys(Resource[M]):
    """`client.keys`; all of it needs a key with the scope "admin"."""

    @call
    def create(
        self,
        name: str,
        *,
        scopes: Sequence[str] = ("submit",),
        expires_at: datetime | None = None,
        max_active_jobs: int | None = None,
        idempotency_key: str | None = None,
    ) -> Call[Key]:
        """Make a key. Its `.token` is shown now and never again.

        name: what it is for, so that you know later which one to revoke
        scopes: "read", "submit" (which includes read) or "admin" (which includes both)
        expires_at: with a time zone; default: never
        max_active_jobs: most queued and running jobs; default: the server's
        """
        body = given(
            {
                "name": name, "scopes": [*scopes], "max_active_jobs": max_active_jobs,
                "expires_at": None if expires_at is None else expires_at.isoformat(),
            }
        )  # fmt: skip
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return Call("POST", "/keys", record(Key.from_json), body=body, headers=headers)

    @listing
    def list(self, *, limit: int = 20, after: str | None = None) -> Call[Items[Key]]:
        """The keys of your workspace, without their secrets. limit: so many a page."""
        return Call("GET", "/keys", items(Key.from_json), params=given({"limit": limit, "after": after}))

    @call
    def get(self, key_id: str) -> Call[Key]:
        """One key, by its id, `key_...`. Raises NotFound."""
        return Call("GET", path("keys", key_id), record(Key.from_json))

    @call
    def revoke(self, key_id: str) -> Call[None]:
        """Let it work no longer, within seconds. Raises NotFound, and Conflict for the last key that can make keys."""
        return Call("DELETE", path("keys", key_id), nothing)
