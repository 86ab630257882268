"""The client of a Gradsmith service."""

from __future__ import annotations

from types import TracebackType

import httpx

from gradsmith.aliases import Aliases
from gradsmith.datasets import Datasets
from gradsmith.resources import Families, Jobs, Optimizers
from gradsmith.sweeps import Sweeps
from gradsmith.transport import Transport


class Client:
    """Talks to a Gradsmith server; the nouns of its API are attributes.

        with gradsmith.Client() as client:
            job = client.jobs.create(family="quadratic")
            client.jobs.wait(job)
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
        self._transport = Transport(base_url, api_key, http_client)
        self.jobs = Jobs(self._transport)
        self.sweeps = Sweeps(self._transport)
        self.optimizers = Optimizers(self._transport)
        self.families = Families(self._transport)
        self.datasets = Datasets(self._transport)
        self.aliases = Aliases(self._transport)

    @property
    def base_url(self) -> str:
        """Where the server is."""
        return self._transport.base_url

    def close(self) -> None:
        """Let go of the connections. The client cannot be used afterwards."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.base_url!r})"
