"""Verifying keys without asking the database each time.

What the database says about a key is cached for `cache_seconds`; a key that was revoked through another process may
still work for that long. The hash of the secret is compared on every request.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from starlette.concurrency import run_in_threadpool

from app.auth import tokens
from app.auth.caller import Caller, Scope
from app.store import keys
from app.store.errors import StoreError
from app.store.sessions import Database

logger = logging.getLogger("gradsmith.keys")

NOTE_USE_SECONDS = 60.0  # how often `last_used_at` is written
MOST_REMEMBERED = 4096
_NOBODY = "0" * 64  # compared with where there is no such key, so that the answer takes as long


class InvalidKey(Exception):
    """The token is refused; the message says why and shows nothing of it."""


@dataclass(frozen=True)
class _Known:
    """What the database said of an id at `checked`; `caller` is None where there is no such key."""

    checked: float
    sha256: str = _NOBODY
    caller: Caller | None = None
    expires_at: datetime | None = None
    revoked: bool = False


class KeyRing:
    """One per process, used on its event loop."""

    def __init__(
        self, database: Database, cache_seconds: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._cache_seconds = cache_seconds
        self._monotonic = monotonic
        self._known: dict[str, _Known] = {}
        self._asking: dict[str, asyncio.Task[_Known]] = {}
        self._used: dict[str, datetime] = {}
        self._noting: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._noting = asyncio.create_task(self._note_regularly())

    async def stop(self) -> None:
        if self._noting is not None:
            self._noting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._noting
        await self._note()

    async def verify(self, token: str) -> Caller:
        """Whose key this is. Raises InvalidKey, or a StoreError when the database cannot say."""
        try:
            given = tokens.parse(token)
        except tokens.MalformedToken as error:
            raise InvalidKey(str(error)) from None
        known = self._known.get(given.key_id)
        if known is None or self._monotonic() - known.checked >= self._cache_seconds:
            known = await self._ask(given.key_id)
        if not hmac.compare_digest(known.sha256, given.sha256) or known.caller is None:
            raise InvalidKey("There is no such key.")
        moment = datetime.now(UTC)
        if known.revoked:
            raise InvalidKey("This key has been revoked.")
        if known.expires_at is not None and known.expires_at <= moment:
            raise InvalidKey(f"This key expired at {known.expires_at.isoformat(timespec='seconds')}.")
        self._used[given.key_id] = moment
        return known.caller

    def remembers(self, token: str) -> bool:
        """Whether this key was valid here before: the database need not be asked to tell it from a guess."""
        try:
            given = tokens.parse(token)
        except tokens.MalformedToken:
            return False
        known = self._known.get(given.key_id)
        return known is not None and known.caller is not None and hmac.compare_digest(known.sha256, given.sha256)

    def forget(self, key_id: str) -> None:
        """Ask the database anew: the key was revoked here."""
        self._known.pop(key_id, None)

    async def _ask(self, key_id: str) -> _Known:
        """One question for all requests that wait for its answer."""
        task = self._asking.get(key_id)
        if task is None:
            task = self._asking[key_id] = asyncio.create_task(self._ask_database(key_id))
            task.add_done_callback(lambda _: self._asking.pop(key_id, None))
        return await asyncio.shield(task)  # one caller who leaves takes nothing from the others

    async def _ask_database(self, key_id: str) -> _Known:
        checked = self._monotonic()  # before the question: what is revoked while it is answered is found next time
        known = await run_in_threadpool(self._read, key_id, checked)
        self._known.pop(key_id, None)
        while len(self._known) >= MOST_REMEMBERED:
            del self._known[next(iter(self._known))]  # the one asked about longest ago
        self._known[key_id] = known
        return known

    def _read(self, key_id: str, checked: float) -> _Known:
        with self._database.read() as session:
            row = keys.find(session, key_id)
        if row is None:
            return _Known(checked)
        caller = Caller(row.workspace, row.id, frozenset(cast("list[Scope]", row.scopes)))
        return _Known(checked, row.sha256, caller, row.expires_at, row.revoked_at is not None)

    async def _note_regularly(self) -> None:
        while True:
            await asyncio.sleep(NOTE_USE_SECONDS)
            await self._note()

    async def _note(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await run_in_threadpool(self._write_use, used)
        except StoreError as error:  # it is told again with the next use
            logger.warning("could not store when keys were last used: %s", error)

    def _write_use(self, used: dict[str, datetime]) -> None:
        with self._database.write() as session:
            keys.note_use(session, used)
