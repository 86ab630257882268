"""Coalesces concurrent requests to the database.

While one batch is being answered, later requests wait and go together in the next, so each answer reflects a moment
after its request. One thread and one connection serve all requests: the more there are, the larger the batches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextvars import Context
from itertools import islice
from typing import Generic, TypeVar

from starlette.concurrency import run_in_threadpool

RequestT = TypeVar("RequestT", bound=Hashable)
AnswerT = TypeVar("AnswerT")


class Batching(Generic[RequestT, AnswerT]):
    """Calls `answer` in a thread with the requests of a batch, in order of arrival and without duplicates. An exception
    is raised in those who asked. `most`: requests per batch. Belongs to one event loop."""

    def __init__(
        self, answer: Callable[[Sequence[RequestT]], Mapping[RequestT, AnswerT | Exception]], most: int = 1000
    ) -> None:
        self._answer = answer
        self._most = most
        self._waiting: dict[RequestT, asyncio.Future[AnswerT]] = {}
        self._journeys: asyncio.Task[None] | None = None

    async def ask(self, request: RequestT) -> AnswerT:
        future = self._waiting.get(request)
        if future is None:
            future = self._waiting[request] = asyncio.get_running_loop().create_future()
        if self._journeys is None or self._journeys.done():
            # A fresh context: otherwise the whole batch would log under the id of the request that started it.
            self._journeys = asyncio.create_task(self._travel(), context=Context())
        return await asyncio.shield(future)  # a cancelled caller must not cancel the others

    async def _travel(self) -> None:
        while self._waiting:
            asked = {request: self._waiting.pop(request) for request in list(islice(self._waiting, self._most))}
            try:
                answers: Mapping[RequestT, AnswerT | Exception] = await run_in_threadpool(self._answer, list(asked))
            except Exception as error:  # noqa: BLE001  - whatever it is belongs to those who asked
                answers = dict.fromkeys(asked, error)
            for request, future in asked.items():
                found = answers.get(request, LookupError("the journey brought no answer"))
                if isinstance(found, Exception):
                    future.set_exception(found)
                    future.exception()  # seen, also where all who asked have left
                else:
                    future.set_result(found)
