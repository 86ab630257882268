"""The body of a request that brings a file, part by part: within its size, and without a long pause."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi import Request

from app.http.problems import Problem


async def received(
    request: Request, take: Callable[[bytes], object], *, limit_bytes: int, timeout_seconds: float
) -> None:
    """Hand each part to `take` as it comes.

    Raises Problem `body_too_large` and `too_slow`, ClientDisconnect where the client went away before the end, and what
    `take` raises.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit_bytes:
        raise _too_large(limit_bytes)
    parts = request.stream()
    size = 0
    while True:
        try:
            async with asyncio.timeout(timeout_seconds):
                part = await anext(parts, None)
        except TimeoutError:
            raise Problem(
                "too_slow",
                f"{size:,} bytes of the file came, and nothing more for {timeout_seconds:g} seconds. Send it again.",
                headers={"Connection": "close"},  # the rest of it is not read
                timeout_seconds=timeout_seconds,
            ) from None
        if part is None:
            return
        size += len(part)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        take(part)


def _too_large(limit_bytes: int) -> Problem:
    return Problem(
        "body_too_large",
        f"The file is larger than {limit_bytes:,} bytes.",
        headers={"Connection": "close"},  # the rest of it is not read
        limit_bytes=limit_bytes,
    )
