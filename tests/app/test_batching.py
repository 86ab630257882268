"""Questions that are asked together: each answer is of a moment after its question."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextvars import ContextVar

import pytest

from app.batching import Batching


class Store:
    """Counts the journeys to it; each waits until it may go."""

    def __init__(self) -> None:
        self.value = 0
        self.journeys: list[list[str]] = []
        self.go = threading.Semaphore(0)

    def answer(self, asked: Sequence[str]) -> dict[str, int | Exception]:
        seen = self.value  # as the database would see it when the question arrives there
        self.journeys.append(list(asked))
        assert self.go.acquire(timeout=10)
        return {name: LookupError(name) if name == "unknown" else seen for name in asked}


async def arrived(store: Store, count: int) -> None:
    async with asyncio.timeout(10):
        while len(store.journeys) < count:
            await asyncio.sleep(0.001)


async def _many_share_a_journey() -> None:
    store = Store()
    batching = Batching(store.answer)
    first = asyncio.create_task(batching.ask("alias"))
    await arrived(store, 1)
    store.value = 1  # moved, while the first question is on its way
    later = [asyncio.create_task(batching.ask("alias")) for _ in range(50)]
    other = asyncio.create_task(batching.ask("unknown"))
    await asyncio.sleep(0.01)
    later[7].cancel()
    store.go.release()
    assert await first == 0
    await arrived(store, 2)
    store.go.release()
    answers = await asyncio.gather(*later, other, return_exceptions=True)
    assert store.journeys == [["alias"], ["alias", "unknown"]]
    assert answers[:7] + answers[8:50] == [1] * 49, "who asked after the move sees it"
    assert isinstance(answers[7], asyncio.CancelledError), "who leaves takes nothing from the others"
    assert isinstance(answers[50], LookupError)
    store.go.release()
    assert await batching.ask("alias") == 1, "it travels again"


def test_what_comes_while_others_are_on_their_way_shares_the_next_journey() -> None:
    asyncio.run(_many_share_a_journey())


def test_a_store_that_is_away_is_told_to_all_who_asked() -> None:
    def away(_asked: Sequence[str]) -> dict[str, int | Exception]:
        raise ConnectionError("the database is away")

    async def both() -> None:
        batching = Batching(away)
        answers = await asyncio.gather(batching.ask("one"), batching.ask("two"), return_exceptions=True)
        assert [str(answer) for answer in answers] == ["the database is away"] * 2
        with pytest.raises(ConnectionError):
            await batching.ask("one")

    asyncio.run(both())


def test_a_journey_takes_so_many_and_no_more_in_their_order() -> None:
    journeys: list[list[int]] = []

    def answer(asked: Sequence[int]) -> dict[int, int | Exception]:
        journeys.append(list(asked))
        return {number: number * number for number in asked}

    async def all_of_them() -> None:
        batching = Batching(answer, most=3)
        assert await asyncio.gather(*map(batching.ask, range(7))) == [number * number for number in range(7)]

    asyncio.run(all_of_them())
    assert journeys == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_request_that_the_journey_forgot_is_told_so_and_the_next_travels() -> None:
    request_id: ContextVar[str] = ContextVar("request_id")
    seen: list[str | None] = []

    def answer(asked: Sequence[str]) -> dict[str, str | Exception]:
        seen.append(request_id.get(None))
        return {name: name for name in asked if name != "forgotten"}

    async def both() -> None:
        batching = Batching(answer)
        request_id.set("of the first who asked")
        answers = await asyncio.gather(*map(batching.ask, ["fine", "forgotten"]), return_exceptions=True)
        assert answers[0] == "fine"
        assert isinstance(answers[1], LookupError)
        assert await batching.ask("later") == "later"

    asyncio.run(both())
    assert seen == [None, None], "a journey is of several requests, and its log lines of none"
