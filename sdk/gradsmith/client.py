"""The clients of a Gradsmith service: one that blocks, and one for asyncio."""

from __future__ import annotations

from types import TracebackType
from typing import Generic

import httpx

from gradsmith.calls.aliases import Aliases
from gradsmith.calls.base import M
from gradsmith.calls.datasets import Datasets
from gradsmith.calls.families import Families
from gradsmith.calls.jobs import Jobs
from gradsmith.calls.keys import Keys
from gradsmith.calls.optimizers import Optimizers
from gradsmith.calls.sweeps import Sweeps
from gradsmith.calls.system import System
from gradsmith.connection import TIMEOUT, Connection
from gradsmith.executors import Async, RawAsync, RawSync, Sync
from gradsmith.proxies import transport_for


class Resources(Generic[M]):
    """The nouns of the API."""

    def __init__(self, executor: M) -> None:
        self._executor = executor
        self.jobs = Jobs(executor)
        self.sweeps = Sweeps(executor)
        self.optimizers = Optimizers(executor)
        self.families = Families(executor)
        self.datasets = Datasets(executor)
        self.aliases = Aliases(executor)
        self.keys = Keys(executor)
        self.system = System(executor)

    @property
    def base_url(self) -> str:
        """Where the server is."""
        return self._executor.connection.base_url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"


class Client(Resources[Sync]):
    """Talks to a Gradsmith server; the nouns of its API are attributes.

        with gradsmith.Client() as client:
            job = client.jobs.create(family="quadratic")
            client.jobs.wait(job, progress=True)
            client.optimizers.pull("quadratic@best", "quadratic.safetensors")

    base_url: default: the environment variable GRADSMITH_URL, else http://127.0.0.1:8000
    api_key: default: GRADSMITH_API_KEY, else none
    http_client: an `httpx.Client` of yours (proxies, certificates, tests); it stays open when this one is closed

    A client may be used by several threads. Every call raises an error of `gradsmith.errors`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        http_client: httpx.Client | None = None,
    ) -> None:
        connection = Connection.to(base_url, api_key, http_client)
        self._own = http_client is None
        # Given a transport, httpx leaves the proxy variables alone; it still reads .netrc and those of certificates.
        http = http_client or httpx.Client(
            timeout=TIMEOUT, transport=transport_for(connection.base_url, httpx.HTTPTransport)
        )
        super().__init__(Sync(connection, http))

    def with_options(self, *, timeout: float | httpx.Timeout | None = None, max_retries: int | None = None) -> Client:
        """This client with other limits; both share their connections, and this one closes them.

        timeout: seconds that connecting, sending and each wait for bytes may take (default: 5 to connect, 30 else); an
            `httpx.Timeout` sets them one by one. A stream may be silent for longer
        max_retries: further tries after a failure that may pass: of one call (default: 4), and in a row where a job is
            followed or waited for (default: 9)
        """
        other = object.__new__(Client)
        other._own = False
        connection = self._executor.connection.changed(timeout, max_retries)
        Resources.__init__(other, Sync(connection, self._executor.http))
        return other

    @property
    def with_raw_response(self) -> Resources[RawSync]:
        """The same calls, which give the answer as it came: `.status_code`, `.headers`, `.content`, `.parse()`."""
        return Resources(RawSync(self._executor))

    def close(self) -> None:
        """Let go of the connections. The client cannot be used afterwards."""
        if self._own:
            self._executor.http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(Resources[Async]):
    """`Client` for asyncio: the same calls, each of them awaited; lists and streams are gone through by `async for`.

        async with gradsmith.AsyncClient() as client:
            job = await client.jobs.create(family="quadratic")
            async for event in client.jobs.stream(job):
                print(event)
            async for job in client.jobs.list(family="quadratic"):  # all of them, page by page
                print(job.id)

    base_url: default: the environment variable GRADSMITH_URL, else http://127.0.0.1:8000
    api_key: default: GRADSMITH_API_KEY, else none
    http_client: an `httpx.AsyncClient` of yours; it stays open when this one is closed

    A client belongs to one event loop. Every call raises an error of `gradsmith.errors`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        connection = Connection.to(base_url, api_key, http_client)
        self._own = http_client is None
        http = http_client or httpx.AsyncClient(
            timeout=TIMEOUT, transport=transport_for(connection.base_url, httpx.AsyncHTTPTransport)
        )
        super().__init__(Async(connection, http))

    def with_options(
        self, *, timeout: float | httpx.Timeout | None = None, max_retries: int | None = None
    ) -> AsyncClient:
        """This client with other limits; both share their connections, and this one closes them.

        timeout, max_retries: as `Client.with_options` takes them
        """
        other = object.__new__(AsyncClient)
        other._own = False
        connection = self._executor.connection.changed(timeout, max_retries)
        Resources.__init__(other, Async(connection, self._executor.http))
        return other

    @property
    def with_raw_response(self) -> Resources[RawAsync]:
        """The same calls, which give the answer as it came: `.status_code`, `.headers`, `.content`, `.parse()`."""
        return Resources(RawAsync(self._executor))

    async def close(self) -> None:
        """Let go of the connections. The client cannot be used afterwards."""
        if self._own:
            await self._executor.http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
