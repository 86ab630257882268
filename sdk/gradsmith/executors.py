"""Two executors of one description: `Sync` blocks, `Async` waits on asyncio's event loop; each also gives raw answers.

They differ in how an effect is carried out and in what a call gives; everything else is in the programs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import httpx

from gradsmith.connection import Connection
from gradsmith.pages import AsyncListing, AsyncPage, Page
from gradsmith.programs import Call, Effect, Emit, Feed, Items, Open, Program, Read, Send, Sleep, Work
from gradsmith.retries import Options, answered

T = TypeVar("T")

_UPLOADED_AT_ONCE = 1 << 20  # bytes


class RawResponse(Generic[T]):
    """An answer as it came. The status is a success: errors are raised as ever."""

    def __init__(self, call: Call[T], response: httpx.Response) -> None:
        self._call = call
        self.http_response = response

    @property
    def status_code(self) -> int:
        """The HTTP status, 2xx."""
        return self.http_response.status_code

    @property
    def headers(self) -> httpx.Headers:
        """Such as `X-Request-Id`, `ETag` and `Location`."""
        return self.http_response.headers

    @property
    def content(self) -> bytes:
        """The body."""
        return self.http_response.content

    def parse(self) -> T:
        """What the call gives without `with_raw_response`. Raises InvalidResponse."""
        return self._call.read(self.http_response)

    def __repr__(self) -> str:
        request = self.http_response.request
        return f"RawResponse({self.status_code}, {request.method} {request.url.path})"


class Executor:
    """What a resource has of its client. gives: what each sort of call returns, in words for `inspect.signature`"""

    gives: ClassVar[dict[str, str]]

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @property
    def options(self) -> Options:
        """Time limits and retries."""
        return self.connection.options


class Sync(Executor):
    """Blocks."""

    gives: ClassVar = {"call": "{}", "listing": "Page[{}]", "program": "{}", "feed": "Iterator[{}]"}

    def __init__(self, connection: Connection, http: httpx.Client) -> None:
        super().__init__(connection)
        self.http = http

    def call(self, call: Call[T]) -> T:
        """What the call gives."""
        return call.read(self.program(answered(call, self.options)))

    def listing(self, call: Call[Items[T]]) -> Page[T]:
        """The first page."""
        return Page(self.call(call), call, self.listing)

    def program(self, program: Program[T]) -> T:
        """The program's result."""
        answer: Any = None
        failure: Exception | None = None
        with closing(program):
            while True:
                try:
                    effect = program.throw(failure) if failure is not None else program.send(answer)
                except StopIteration as end:
                    result: T = end.value
                    return result
                answer, failure = None, None
                try:
                    answer = self._done(effect)
                except Exception as error:  # noqa: BLE001  the program decides
                    failure = error

    def feed(self, feed: Feed[T]) -> Iterator[T]:
        """What the feed emits. Its connection is closed with it."""
        answer: Any = None
        failure: Exception | None = None
        reading = _Reading()
        try:
            while True:
                try:
                    effect = feed.throw(failure) if failure is not None else feed.send(answer)
                except StopIteration:
                    return
                answer, failure = None, None
                if isinstance(effect, Emit):
                    yield effect.value
                    continue
                try:
                    if isinstance(effect, Open):
                        reading.close()
                        reading = self._opened(effect)
                        answer = reading.response
                    elif isinstance(effect, Read):
                        answer = self._read(reading)
                    else:
                        answer = self._done(effect)
                except Exception as error:  # noqa: BLE001  the program decides
                    failure = error
        finally:
            reading.close()

    def _done(self, effect: Effect) -> Any:
        match effect:
            case Send():
                return self._sent(effect.call)
            case Sleep():
                return time.sleep(effect.seconds)
            case Work():
                return effect.function()
        raise AssertionError(f"only a feed reads while it comes: {effect}")

    def _sent(self, call: Call[Any]) -> httpx.Response:
        request = self.connection.request(call)
        try:
            if call.file is None:
                return self.http.request(**request)
            with call.file.open("rb") as content:
                return self.http.request(**request | {"content": content})
        except httpx.RequestError as error:
            raise self.connection.failed(error) from None

    def _opened(self, effect: Open) -> _Reading:
        request = self.connection.stream(effect)
        try:
            response = self.http.send(self.http.build_request(**request), stream=True)
            if not response.is_success:
                response.read()
            return _Reading(response, response.iter_bytes() if response.is_success else None)
        except httpx.RequestError as error:
            raise self.connection.failed(error) from None

    def _read(self, reading: _Reading) -> bytes | None:
        try:
            return None if reading.chunks is None else next(reading.chunks, None)
        except httpx.RequestError as error:
            raise self.connection.failed(error) from None


class Async(Executor):
    """Waits on asyncio's event loop."""

    gives: ClassVar = {
        "call": "Coroutine[Any, Any, {}]", "listing": "AsyncListing[{}]", "program": "Coroutine[Any, Any, {}]",
        "feed": "AsyncIterator[{}]",
    }  # fmt: skip

    def __init__(self, connection: Connection, http: httpx.AsyncClient) -> None:
        super().__init__(connection)
        self.http = http

    async def call(self, call: Call[T]) -> T:
        """What the call gives."""
        response = await self.program(answered(call, self.options))
        return await asyncio.to_thread(call.read, response) if call.blocking else call.read(response)

    def listing(self, call: Call[Items[T]]) -> AsyncListing[T]:
        """The list: `await` gives its first page, `async for` goes through all of them."""

        async def page(call: Call[Items[T]]) -> AsyncPage[T]:
            return AsyncPage(await self.call(call), call, page)

        return AsyncListing(call, page)

    async def program(self, program: Program[T]) -> T:
        """The program's result."""
        answer: Any = None
        failure: Exception | None = None
        with closing(program):
            while True:
                try:
                    effect = program.throw(failure) if failure is not None else program.send(answer)
                except StopIteration as end:
                    result: T = end.value
                    return result
                answer, failure = None, None
                try:
                    answer = await self._done(effect)
                except Exception as error:  # noqa: BLE001  the program decides
                    failure = error

    async def feed(self, feed: Feed[T]) -> AsyncIterator[T]:
        """What the feed emits. Its connection is closed with it."""
        answer: Any = None
        failure: Exception | None = None
        reading = _AsyncReading()
        try:
            while True:
                try:
                    effect = feed.throw(failure) if failure is not None else feed.send(answer)
                except StopIteration:
                    return
                answer, failure = None, None
                if isinstance(effect, Emit):
                    yield effect.value
                    continue
                try:
                    if isinstance(effect, Open):
                        await reading.close()
                        reading = await self._opened(effect)
                        answer = reading.response
                    elif isinstance(effect, Read):
                        answer = await self._read(reading)
                    else:
                        answer = await self._done(effect)
                except Exception as error:  # noqa: BLE001  the program decides
                    failure = error
        finally:
            await reading.close()

    async def _done(self, effect: Effect) -> Any:
        match effect:
            case Send():
                return await self._sent(effect.call)
            case Sleep():
                return await asyncio.sleep(effect.seconds)
            case Work():
                return await asyncio.to_thread(effect.function)
        raise AssertionError(f"only a feed reads while it comes: {effect}")

    async def _sent(self, call: Call[Any]) -> httpx.Response:
        request = self.connection.request(call)
        try:
            if call.file is None:
                return await self.http.request(**request)
            return await self.http.request(**request | {"content": _bytes_of(call.file)})
        except httpx.RequestError as error:
            raise self.connection.failed(error) from None

    async def _opened(self, effect: Open) -> _AsyncReading:
        request = self.connection.stream(effect)
        try:
            response = await self.http.send(self.http.build_request(**request), stream=True)
            if not response.is_success:
                await response.aread()
            return _AsyncReading(response, response.aiter_bytes() if response.is_success else None)
        except httpx.RequestError as error:
            raise self.connection.failed(error) from None

    async def _read(self, reading: _AsyncReading) -> bytes | None:
        try:
            return None if reading.chunks is None else await anext(reading.chunks, None)
        except httpx.RequestError as error:
            raise self.connection.failed(error) from None


class RawSync(Executor):
    """Gives raw answers, and blocks."""

    gives: ClassVar = {"call": "RawResponse[{}]", "listing": "RawResponse[Items[{}]]"}

    def __init__(self, plain: Sync) -> None:
        super().__init__(plain.connection)
        self._plain = plain

    def call(self, call: Call[T]) -> RawResponse[T]:
        """The answer."""
        return RawResponse(call, self._plain.program(answered(call, self.options)))

    listing = call


class RawAsync(Executor):
    """Gives raw answers, and waits on asyncio's event loop."""

    gives: ClassVar = {
        "call": "Coroutine[Any, Any, RawResponse[{}]]", "listing": "Coroutine[Any, Any, RawResponse[Items[{}]]]",
    }  # fmt: skip

    def __init__(self, plain: Async) -> None:
        super().__init__(plain.connection)
        self._plain = plain

    async def call(self, call: Call[T]) -> RawResponse[T]:
        """The answer."""
        return RawResponse(call, await self._plain.program(answered(call, self.options)))

    listing = call


class _Reading:
    """An answer that is read while it comes, or none."""

    def __init__(self, response: httpx.Response | None = None, chunks: Iterator[bytes] | None = None) -> None:
        self.response, self.chunks = response, chunks

    def close(self) -> None:
        if self.response is not None:
            self.response.close()


class _AsyncReading:
    """The same on an event loop."""

    def __init__(self, response: httpx.Response | None = None, chunks: AsyncIterator[bytes] | None = None) -> None:
        self.response, self.chunks = response, chunks

    async def close(self) -> None:
        if self.response is not None:
            await self.response.aclose()


async def _bytes_of(file: Path) -> AsyncIterator[bytes]:
    content = await asyncio.to_thread(file.open, "rb")
    try:
        while chunk := await asyncio.to_thread(content.read, _UPLOADED_AT_ONCE):
            yield chunk
    finally:
        content.close()
