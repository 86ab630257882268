"""Every client sees every event once and in order, whatever happens to Redis, to workers and to slow clients."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, closing
from typing import Any

import pytest
import redis

from app.settings import Settings
from app.store import events, leases
from app.store.errors import LeaseLost
from app.store.events import START, EventId, JobEvent
from app.store.leases import Lease
from app.store.sessions import Database
from app.streams import Publisher, StreamHub, stream_key
from app.streams import hub as hub_module
from app.streams.merge import BUFFERED_EVENTS
from tests.app.store.bench import Bench, points
from workshop.services import ValkeyServer

PATIENCE_SECONDS = 25.0


class Worker:
    """Says things live and stores them later, as `workers.recorder` does."""

    def __init__(self, settings: Settings, bench: Bench, job_id: str) -> None:
        self.bench = bench
        self.lease = bench.claim(bench.get(job_id))
        self.publisher = Publisher(settings, job_id)
        self.next = bench.read(lambda session: events.next_id(session, job_id, self.lease.attempt)).sequence
        self.unstored: list[JobEvent] = []
        self.said: list[JobEvent] = []

    def say(self, *, live: bool = True) -> JobEvent:
        event_id = EventId(self.lease.attempt, self.next)
        self.next += 1
        if event_id.sequence % 5 == 0:
            event = JobEvent.of(event_id, "log", {"message": f"number {event_id.sequence}", "level": "info"})
        else:
            event = JobEvent.metrics(event_id, points(3 * event_id.sequence, 3))
        self.unstored.append(event)
        self.said.append(event)
        if live:
            self.publisher.publish(event)
        return event

    def store(self) -> None:
        self.bench.record(self.lease, *self.unstored)
        self.unstored = []

    def end(self, *, live: bool = True) -> JobEvent:
        event = self.bench.finish(self.lease, self.next, last=self.unstored).event
        self.said.append(event)
        if live:
            self.publisher.publish(event)
        self.publisher.close()
        return event


@asynccontextmanager
async def hub_of(settings: Settings, database: Database) -> AsyncIterator[StreamHub]:
    hub = StreamHub(settings, database)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()


class Client:
    """Collects a job's events in the background."""

    def __init__(self, hub: StreamHub, job_id: str, after: EventId = START) -> None:
        self.seen: list[JobEvent] = []
        self._task = asyncio.create_task(self._collect(hub, job_id, after))

    async def _collect(self, hub: StreamHub, job_id: str, after: EventId) -> None:
        async with aclosing(hub.events(job_id, after)) as found:
            async for event in found:
                self.seen.append(event)

    async def ended(self) -> list[JobEvent]:
        await asyncio.wait_for(self._task, PATIENCE_SECONDS)
        return self.seen

    async def has(self, count: int, patience_seconds: float = PATIENCE_SECONDS) -> list[JobEvent]:
        await until(lambda: len(self.seen) >= count, patience_seconds)
        return self.seen

    async def leave(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def until(condition: Callable[[], bool], patience_seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + patience_seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


def same(seen: list[JobEvent], said: list[JobEvent]) -> None:
    assert [str(event.id) for event in seen] == [str(event.id) for event in said]
    assert [(event.kind, event.text) for event in seen] == [(event.kind, event.text) for event in said]


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 2 * PATIENCE_SECONDS))


@pytest.fixture
def bench(database: Database) -> Bench:
    return Bench(database)


@pytest.fixture
def lite(sqlite_database: Database) -> Bench:
    """On SQLite alone: where the database makes no difference."""
    return Bench(sqlite_database)


# --- the whole way ----------------------------------------------------------------------------------------------


def test_early_late_and_resuming_clients_see_the_same(bench: Bench, settings: Settings) -> None:
    job = bench.create()

    async def story() -> None:
        async with hub_of(settings, bench.database) as hub:
            early = Client(hub, job.id)
            worker = Worker(settings, bench, job.id)
            for number in range(40):
                worker.say()
                if number % 15 == 14:
                    worker.store()
            await early.has(40, 5)
            late = Client(hub, job.id)  # 30 are stored, 10 are in Redis only
            resumed = Client(hub, job.id, EventId(1, 35))
            await late.has(40, 5)
            await resumed.has(5, 5)
            worker.say()
            worker.end()
            same(await early.ended(), worker.said)
            same(await late.ended(), worker.said)
            same(await resumed.ended(), worker.said[35:])
            same(await Client(hub, job.id).ended(), worker.said)
            assert await Client(hub, job.id, worker.said[-1].id).ended() == []

    run(story())
    assert bench.read(lambda session: events.is_past_end(session, job.id, EventId(1, 42)))
    assert not bench.read(lambda session: events.is_past_end(session, job.id, EventId(1, 41)))


def test_events_are_live_without_a_poll_also_on_streams_that_came_later(
    lite: Bench, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = {
        "POLL_SECONDS": 600.0,
        "JOB_POLL_SECONDS": 600.0,
        "BLOCK_MILLISECONDS": 600_000,
        "REDIS_TIMEOUT_SECONDS": 600.0,
    }
    for name, value in never.items():
        monkeypatch.setattr(hub_module, name, value)
    jobs = [lite.create() for _ in range(3)]

    async def story() -> None:
        async with hub_of(settings, lite.database) as live:
            clients = []
            for job in jobs:  # the reader waits on the streams before; a new one must wake it
                clients.append(Client(live, job.id))
                worker = Worker(settings, lite, job.id)
                await asyncio.sleep(0.1)
                for count in range(1, 6):
                    worker.say()
                    await clients[-1].has(count)
                worker.publisher.close()
            for client in clients:
                await client.leave()

    run(story())


def test_a_hundred_watchers_cost_one_reader(lite: Bench, settings: Settings) -> None:
    job = lite.create()

    async def story() -> None:
        async with hub_of(settings, lite.database) as hub:
            worker = Worker(settings, lite, job.id)
            clients = [Client(hub, job.id) for _ in range(100)]
            await asyncio.sleep(0.1)
            for _ in range(20):
                worker.say()
            with redis.Redis.from_url(settings.resolved_redis_url) as client:
                blocked = client.info("clients")["blocked_clients"]
            assert blocked <= 1
            worker.end()
            for watcher in clients:
                same(await watcher.ended(), worker.said)

    run(story())


# --- Redis goes away --------------------------------------------------------------------------------------------


def settings_for(settings: Settings, valkey: ValkeyServer, **changes: Any) -> Settings:
    return Settings(data_dir=settings.data_dir, database_url=settings.database_url, redis_url=valkey.url, **changes)


def test_without_redis_events_come_from_the_database(bench: Bench, settings: Settings, valkey: ValkeyServer) -> None:
    settings = settings_for(settings, valkey)
    valkey.stop()
    job = bench.create()

    async def story() -> None:
        async with hub_of(settings, bench.database) as hub:
            client = Client(hub, job.id)
            worker = Worker(settings, bench, job.id)
            started = time.perf_counter()
            for _ in range(200):
                worker.say()
            assert time.perf_counter() - started < 20, "the training does not wait for Redis"
            worker.store()
            await client.has(200, 5)
            worker.end()
            same(await client.ended(), worker.said)

    run(story())


def test_redis_that_comes_back_empty_loses_nothing(bench: Bench, settings: Settings, valkey: ValkeyServer) -> None:
    settings = settings_for(settings, valkey)
    job = bench.create()

    async def story() -> None:
        async with hub_of(settings, bench.database) as hub:
            client = Client(hub, job.id)
            worker = Worker(settings, bench, job.id)
            for _ in range(10):
                worker.say()
            await client.has(10)
            valkey.stop()
            for _ in range(10):
                worker.say()
            await asyncio.sleep(0.6)
            valkey.start()
            deadline = time.monotonic() + 10
            while worker.publisher._unsent:  # the publisher tries again when its pause is over
                worker.say()
                await asyncio.sleep(0.1)
                assert time.monotonic() < deadline
            await client.has(len(worker.said), 5)
            late = Client(hub, job.id)
            await asyncio.sleep(0.2)
            assert late.seen == [], "the first ten are gone from Redis and not stored yet: wait, and skip nothing"
            worker.store()
            await late.has(len(worker.said), 5)
            worker.end()
            same(await client.ended(), worker.said)
            same(await late.ended(), worker.said)

    run(story())


def test_a_trimmed_stream_is_filled_from_the_database(lite: Bench, settings: Settings) -> None:
    settings = settings.model_copy(update={"stream_length": 100})
    job = lite.create()
    worker = Worker(settings, lite, job.id)
    for _ in range(600):
        worker.say()
    with redis.Redis.from_url(settings.resolved_redis_url) as client:
        assert client.xlen(stream_key(job.id)) < 300

    async def story() -> None:
        async with hub_of(settings, lite.database) as hub:
            client = Client(hub, job.id)
            await asyncio.sleep(0.2)
            assert client.seen == []
            worker.store()
            await client.has(600, 5)
            worker.end()
            same(await client.ended(), worker.said)

    run(story())


# --- slow clients, new attempts ---------------------------------------------------------------------------------


def test_a_slow_client_is_sent_to_the_database_and_misses_nothing(lite: Bench, settings: Settings) -> None:
    job = lite.create()

    async def story() -> None:
        async with hub_of(settings, lite.database) as hub:
            worker = Worker(settings, lite, job.id)
            worker.say()
            async with aclosing(hub.events(job.id)) as found:
                seen = [await anext(found)]
                await asyncio.sleep(0.05)
                seen.append(await take_one(found, worker))
                for _ in range(3 * BUFFERED_EVENTS):
                    worker.say()
                await asyncio.sleep(0.3)
                (watcher,) = hub._watchers[job.id]
                assert watcher.merger.kept <= BUFFERED_EVENTS
                assert watcher.look_again, "it overflowed"
                (overruns, *_) = next(iter(hub._instruments.stream_overruns.collect())).samples
                assert overruns.value >= 1, "and that is counted"
                worker.end()
                seen += [event async for event in found]
            same(seen, worker.said)

    async def take_one(found: Any, worker: Worker) -> JobEvent:
        worker.say()
        event: JobEvent = await anext(found)
        return event

    run(story())


def test_a_new_attempt_follows_the_lost_one(bench: Bench, settings: Settings) -> None:
    job = bench.create()

    async def story() -> None:
        async with hub_of(settings, bench.database) as hub:
            client = Client(hub, job.id)
            first = Worker(settings, bench, job.id)
            for _ in range(7):
                first.say()
            first.store()
            lost = [first.say(), first.say()]  # streamed, never stored
            await client.has(9)
            bench.expire(job.id)
            (lapse,) = bench.lapsed()
            await client.has(10, 5)  # by the look at the job: no worker says it
            second = Worker(settings, bench, job.id)
            second.say()
            await client.has(11, 5)
            with pytest.raises(LeaseLost):
                first.say()
            second.end()
            same(await client.ended(), [*first.said[:9], lapse.event, *second.said])
            # Who comes now reads what was stored: the lost worker's last words are nowhere.
            stored = [event for event in first.said[:9] if event not in lost]
            same(await Client(hub, job.id).ended(), [*stored, lapse.event, *second.said])
            same(await Client(hub, job.id, lost[0].id).ended(), [lapse.event, *second.said])

    run(story())


def test_a_job_that_is_cancelled_while_queued_ends_its_stream(bench: Bench, settings: Settings) -> None:
    job = bench.create()

    async def story() -> None:
        async with hub_of(settings, bench.database) as hub:
            client = Client(hub, job.id)
            await asyncio.sleep(0.1)
            bench.cancel(job.id)
            (done,) = await client.ended()
            assert (done.kind, done.data["status"]) == ("done", "cancelled")

    run(story())


def test_the_hub_forgets_clients_that_left_and_ends_those_that_stay(lite: Bench, settings: Settings) -> None:
    job = lite.create()

    async def story() -> None:
        async with hub_of(settings, lite.database) as hub:
            leaving, staying = Client(hub, job.id), Client(hub, job.id)
            await until(lambda: len(hub._watchers.get(job.id, ())) == 2)
            await leaving.leave()
            assert len(hub._watchers[job.id]) == 1
        assert await staying.ended() == []
        assert hub._watchers == {}
        assert hub._read_from == {}

    run(story())


def test_an_unknown_job_has_no_events(lite: Bench, settings: Settings) -> None:
    async def story() -> None:
        async with hub_of(settings, lite.database) as hub:
            assert await Client(hub, "job_none").ended() == []

    run(story())


@pytest.mark.parametrize("seed", range(4))
def test_any_mix_of_troubles_gives_each_event_once(
    lite: Bench, settings: Settings, valkey: ValkeyServer, seed: int
) -> None:
    """Random flushes, live copies that are lost, a Redis that restarts empty, clients that come and go."""
    settings = settings_for(settings, valkey, stream_length=100)
    job = lite.create()
    chance = random.Random(seed)

    async def story() -> None:
        async with hub_of(settings, lite.database) as hub:
            worker = Worker(settings, lite, job.id)
            clients = [(START, Client(hub, job.id))]
            for _ in range(150):
                worker.say(live=chance.random() < 0.8)
                roll = chance.random()
                if roll < 0.08:
                    worker.store()
                elif roll < 0.12:
                    position = worker.said[chance.randrange(len(worker.said))].id
                    clients.append((position, Client(hub, job.id, position)))
                elif roll < 0.13:
                    valkey.stop()
                    valkey.start()
                elif roll < 0.3:
                    await asyncio.sleep(0.01)
            worker.end(live=chance.random() < 0.5)
            for position, client in clients:
                same(await client.ended(), [event for event in worker.said if event.id > position])

    run(story())


# --- the publisher ----------------------------------------------------------------------------------------------


def entries(settings: Settings, job_id: str) -> list[str]:
    with redis.Redis.from_url(settings.resolved_redis_url, decode_responses=True) as client:
        return [entry_id for entry_id, _ in client.xrange(stream_key(job_id))]


def log(attempt: int, sequence: int) -> JobEvent:
    return JobEvent.of(EventId(attempt, sequence), "log", {"message": "x", "level": "info"})


def test_a_stale_attempt_is_refused(settings: Settings) -> None:
    with closing(Publisher(settings, "job_x")) as old, closing(Publisher(settings, "job_x")) as new:
        old.publish(log(1, 1))
        new.publish(log(2, 2))
        with pytest.raises(LeaseLost, match="Attempt 1 of job job_x"):
            old.publish(log(1, 2))
        new.publish(log(2, 3))
    assert entries(settings, "job_x") == ["1-1", "2-2", "2-3"]


def test_an_entry_whose_answer_was_lost_is_no_error(settings: Settings) -> None:
    with closing(Publisher(settings, "job_x")) as publisher:
        publisher.publish(log(1, 1))
        publisher.publish(log(1, 1))
        publisher.publish(log(1, 2))
    assert entries(settings, "job_x") == ["1-1", "1-2"]


def test_what_waited_for_redis_is_sent_in_order(settings: Settings, valkey: ValkeyServer) -> None:
    settings = settings_for(settings, valkey)
    valkey.stop()
    with closing(Publisher(settings, "job_x")) as publisher:
        for sequence in range(1, 4):
            publisher.publish(log(1, sequence))
        valkey.start()
        assert entries(settings, "job_x") == []
        time.sleep(0.6)  # the first pause
        publisher.publish(log(1, 4))
        assert entries(settings, "job_x") == ["1-1", "1-2", "1-3", "1-4"]
        valkey.stop()
        publisher.publish(log(1, 5))
    assert publisher._unsent, "closing without Redis raises nothing"


def test_streams_do_not_stay_for_ever(settings: Settings) -> None:
    with (
        closing(Publisher(settings, "job_x")) as publisher,
        redis.Redis.from_url(settings.resolved_redis_url) as client,
    ):
        publisher.publish(log(1, 1))
        assert 80_000 < client.ttl(stream_key("job_x")) <= 86_400
        publisher.publish(
            JobEvent.of(EventId(1, 2), "done", {"status": "succeeded", "reason": None, "optimizer": None})
        )
        assert 0 < client.ttl(stream_key("job_x")) <= 600


def test_what_a_dead_attempt_never_stored_is_not_waited_for(bench: Bench) -> None:
    job = bench.create()
    lease = bench.claim(job)
    bench.record(lease, log(1, 1), log(1, 2), log(1, 4))  # 1-3 waits in the worker
    assert [str(event.id) for event in bench.events(job.id)] == ["1-1", "1-2"], "it may still come"
    bench.record(lease, log(1, 3))
    assert [str(event.id) for event in bench.events(job.id)] == ["1-1", "1-2", "1-3", "1-4"]
    bench.record(lease, log(1, 6))
    bench.write(lambda session: leases.release(session, Lease(job.id, 1, "worker")))
    assert [str(event.id) for event in bench.events(job.id)] == ["1-1", "1-2", "1-3", "1-4", "1-6", "2-1"]
