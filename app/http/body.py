"""A request's body, whole or not at all: within its size, within its time, and JSON that means one thing only."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.problems import Problem, response_of
from app.http.uploads import is_upload

MOST_LEVELS = 32
"""Deepest nesting that is accepted; valid requests need nine levels."""

MOST_VALUES = 2_000
"""Most fields and entries of arrays in a body, all together. Validation makes an error of each that is wrong, at about
0.3 ms; the largest request that means something has a few hundred."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LARGE_BYTES = 65_536  # from here on, reading it as JSON would keep other requests waiting


class BodyGate:
    """Reads the body of everything but GET and HEAD before the application sees it.

    413 when it is over `limit_bytes`, at once when Content-Length says so, and when it is JSON with over MOST_VALUES
    fields and entries. 408 when it has not come in whole within
    `timeout_seconds`: a client that sends a byte now and then would hold its connection for ever. 400 when it is JSON
    that readers could take for different things (a name twice, NaN, not UTF-8) or nested beyond any use.
    A file is streamed to its endpoint (`app.http.uploads`). What streams out, such as events, has no body to wait for
    and is not touched.
    """

    def __init__(self, app: ASGIApp, limit_bytes: int, timeout_seconds: float) -> None:
        self.app = app
        self.limit_bytes = limit_bytes
        self.timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_upload(scope):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            declared = headers.get("content-length", "")
            if declared.isdecimal() and int(declared[:20]) > self.limit_bytes:
                raise self._too_large()
            if scope["method"] not in _SAFE_METHODS:
                body = await self._whole(receive)
                if body is None:
                    return
                if body and "json" in headers.get("content-type", "").lower():
                    await _checked(body)
                receive = _replayed(body, receive)
        except Problem as problem:
            await response_of(Request(scope), problem)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def _whole(self, receive: Receive) -> bytes | None:
        """None when the client went away before its end."""
        body = bytearray()
        try:
            async with asyncio.timeout(self.timeout_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > self.limit_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise Problem(
                "too_slow",
                f"{len(body):,} bytes of the body came within {self.timeout_seconds:g} seconds, and not its end. "
                "Send it again at one go.",
                headers={"Connection": "close"},  # the rest of it is not read
                timeout_seconds=self.timeout_seconds,
            ) from None

    def _too_large(self) -> Problem:
        return Problem(
            "body_too_large",
            f"The body is larger than {self.limit_bytes:,} bytes.",
            headers={"Connection": "close"},  # the rest of it is not read
            limit_bytes=self.limit_bytes,
        )


def _replayed(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()  # the client's leaving
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _checked(body: bytes) -> None:
    await run_in_threadpool(refuse_ambiguous, body) if len(body) > _LARGE_BYTES else refuse_ambiguous(body)


def refuse_ambiguous(body: bytes) -> None:
    """Raises Problem `invalid_json` unless every reader of JSON would find the same in `body` (RFC 8259, RFC 7493), and
    `body_too_large` where that is more than anybody wants to validate."""
    try:
        value = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_named_once, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise _not_json(f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _not_json(f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # of a whole number with thousands of digits
        raise _not_json(str(error).partition(";")[0]) from None
    if body.count(b"[") + body.count(b"{") > MOST_LEVELS and _levels_exceed(value, MOST_LEVELS):
        raise _too_deep()
    # Each array and object has one comma less than entries.
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MOST_VALUES and (count := _values(value)) > MOST_VALUES:
        raise Problem(
            "body_too_large",
            f"The body has {count:,} fields and array entries; at most {MOST_VALUES:,} are read.",
            limit_values=MOST_VALUES,
        )


def _values(value: Any) -> int:
    """Fields and entries of all arrays and objects, which are not nested deeply."""
    if not isinstance(value, list | dict):
        return 0
    return len(value) + sum(map(_values, value.values() if isinstance(value, dict) else value))


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = json.dumps(Counter(name for name, _ in pairs).most_common(1)[0][0])[:80]
        raise Problem("invalid_json", f"The body names {twice} twice in one object; send it once.")
    return found


def _no_number(literal: str) -> float:
    raise _not_json(f"{literal} is no JSON number")


def _levels_exceed(value: Any, most: int) -> bool:
    """Whether arrays and objects stand in each other more than `most` deep; level by level, without recursion."""
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(most):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, list | dict)
        ]
        if not level:
            return False
    return True


def _not_json(reason: str) -> Problem:
    return Problem("invalid_json", f"The body is not JSON: {reason}.")


def _too_deep() -> Problem:
    return Problem("invalid_json", f"The body is nested too deeply: arrays and objects may stand {MOST_LEVELS} deep.")
