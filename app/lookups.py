"""Many small questions to the database, asked together.

A question that comes while others are on their way waits for the next journey, which takes all that have come by then:
each answer is of a moment after its question, however many share it. One thread and one connection serve them all: the
more downloads there are, the more of them share a journey.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from starlette.concurrency import run_in_threadpool

QuestionT = TypeVar("QuestionT", bound=Hashable)
AnswerT = TypeVar("AnswerT")


class Lookups(Generic[QuestionT, AnswerT]):
    """`answer` gets the questions of a journey, each once, in a thread; an exception is raised for those who asked it.
    For one event loop."""

    def __init__(self, answer: Callable[[Sequence[QuestionT]], Mapping[QuestionT, AnswerT | Exception]]) -> None:
        self._answer = answer
        self._waiting: dict[QuestionT, asyncio.Future[AnswerT]] = {}
        self._journeys: asyncio.Task[None] | None = None

    async def ask(self, question: QuestionT) -> AnswerT:
        future = self._waiting.get(question)
        if future is None:
            future = self._waiting[question] = asyncio.get_running_loop().create_future()
        if self._journeys is None or self._journeys.done():
            self._journeys = asyncio.create_task(self._travel())
        return await asyncio.shield(future)  # who leaves takes nothing from the others

    async def _travel(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting, {}
            try:
                answers: Mapping[QuestionT, AnswerT | Exception] = await run_in_threadpool(self._answer, list(asked))
            except Exception as error:  # noqa: BLE001  - whatever it is belongs to those who asked
                answers = dict.fromkeys(asked, error)
            for question, future in asked.items():
                found = answers[question]
                if future.cancelled():
                    continue
                if isinstance(found, Exception):
                    future.set_exception(found)
                    future.exception()  # seen, also where all who asked have left
                else:
                    future.set_result(found)
