"""`AsyncClient` behind the face of `Client`, so that one test holds for both."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import httpx

import gradsmith
from gradsmith.pages import AsyncListing, AsyncPage

Made = Callable[..., gradsmith.Client]
"""Makes a client, of the arguments that `Client` takes."""


class Blocking:
    """What an `AsyncClient` gives, waited for: its calls run on a loop in a thread of its own."""

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._inner, self._loop = inner, loop

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if inspect.isroutine(value) or inspect.isfunction(value):
            return lambda *arguments, **named: self._given(value(*arguments, **named))
        return Blocking(value, self._loop) if hasattr(value, "_executor") else value

    def __enter__(self) -> Blocking:
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._inner.close())

    def __iter__(self) -> Iterator[Any]:
        return self._each(aiter(self._inner))

    def __repr__(self) -> str:
        return repr(self._inner)

    def _given(self, value: Any) -> Any:
        if isinstance(value, AsyncListing):
            value = self._run(_awaited(value))
        elif inspect.iscoroutine(value):
            value = self._run(value)
        elif isinstance(value, AsyncIterator):
            return self._each(value)
        shared = isinstance(value, AsyncPage | gradsmith.AsyncClient)
        return Blocking(value, self._loop) if shared else value

    def _each(self, values: AsyncIterator[Any]) -> Iterator[Any]:
        try:
            while (value := self._run(_following(values))) is not values:
                yield self._given(value)
        finally:
            self._run(values.aclose())  # type: ignore[attr-defined]

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


async def _awaited(listing: AsyncListing[Any]) -> Any:
    return await listing


async def _following(values: AsyncIterator[Any]) -> Any:
    """The next value; the iterator itself at its end. StopAsyncIteration cannot cross threads."""
    return await anext(values, values)


@contextmanager
def makers(kind: str) -> Iterator[Made]:
    """Makes clients of a kind, "sync" or "async"."""
    if kind == "sync":
        yield gradsmith.Client
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def make(*arguments: Any, http_client: httpx.Client | None = None, **named: Any) -> gradsmith.Client:
        if http_client is not None:  # the tests' transports serve both kinds
            transport = cast(httpx.AsyncBaseTransport, http_client._transport)
            named["http_client"] = httpx.AsyncClient(transport=transport, base_url=http_client.base_url)
        return cast(gradsmith.Client, Blocking(gradsmith.AsyncClient(*arguments, **named), loop))

    try:
        yield make
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()
