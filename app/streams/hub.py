"""The server's side of live streams: one reader per process for all jobs that are watched."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import redis.asyncio
from prometheus_client import CollectorRegistry
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.metrics.instruments import Instruments
from app.settings import Settings
from app.store import events as stored
from app.store.errors import BadEventId, DatabaseUnavailable, StoreError
from app.store.events import START, EventId, JobEvent, Replay
from app.store.ids import random_name
from app.store.sessions import Database
from app.store.standing import Standing, standings
from app.streams.merge import Merger
from app.streams.wire import decode, job_of, lag_seconds, stream_key

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

POLL_SECONDS = 0.5  # how often a client looks into the database while Redis cannot help it
JOB_POLL_SECONDS = 1.0  # how often the hub looks whether watched jobs changed without a word in their streams
BLOCK_MILLISECONDS = 1000
STOP_SECONDS = 2.0
REDIS_TIMEOUT_SECONDS = 5.0
BATCH = 200
_AWAY = (RedisError, OSError)  # TimeoutError is an OSError


class _Watcher:
    """One client: what it was given, and what wakes it."""

    def __init__(self, after: EventId, overran: Callable[[], None]) -> None:
        self.merger = Merger(after)
        self.wake = asyncio.Event()
        self.look_again = False  # something may have happened that the live stream does not tell
        self._overran = overran

    def offer(self, event: JobEvent) -> None:
        if not self.merger.offer(event):  # the client is slow: the hole sends it to the database
            self.look_again = True
            self._overran()
        self.wake.set()

    def nudge(self) -> None:
        self.look_again = True
        self.wake.set()


class StreamHub:
    """All clients' view of all jobs' events. Create, `start`, `stop` and use it in one event loop."""

    def __init__(self, settings: Settings, database: Database, instruments: Instruments | None = None) -> None:
        self._database = database
        self._instruments = instruments or Instruments(CollectorRegistry())
        self._redis: Any = redis.asyncio.Redis.from_url(  # its types know only bytes; we decode
            settings.resolved_redis_url,
            decode_responses=True,
            # Its own timeouts use asyncio.wait_for, which on Python 3.11 swallows a cancellation that comes while a
            # command is sent: a client that leaves would stay for ever. `_in_time` times calls instead.
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
        )
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="event-replay")
        self._watchers: dict[str, set[_Watcher]] = {}  # by job
        self._read_from: dict[str, str] = {}  # by key: the entry id that the reader had last
        self._bell = f"gradsmith:hub:{random_name()}"  # a stream of our own: an entry ends the reader's wait
        self._bell_from = "0-0"
        self._watched = asyncio.Event()
        self._unwatched = asyncio.Event()
        self._unwatched.set()
        self._redis_is_up = True
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._read_streams()), asyncio.create_task(self._look_at_jobs())]

    @property
    def stopping(self) -> bool:
        """Streams end because this process does, and not because their jobs did."""
        return self._stopping

    def end_streams(self) -> None:
        """Have all clients' streams end where they are; each can go on elsewhere after its last event."""
        self._stopping = True
        self._nudge_all()

    async def stop(self) -> None:
        """End all clients' streams and close."""
        self.end_streams()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):  # clients that are held up elsewhere need nothing of ours any more
            async with asyncio.timeout(STOP_SECONDS):
                await self._unwatched.wait()
        await self._redis.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def events(self, job_id: str, after: EventId = START) -> AsyncGenerator[JobEvent, None]:
        """The job's events after that id, each once and in order: what is stored, then live. Ends with the job.

        Close it (`contextlib.aclosing`) when the client goes. A client that waits needs no thread and no connection.
        """
        async with self._watching(job_id, after) as watcher:
            merger = watcher.merger
            while not self._stopping:
                watcher.look_again = False
                replay = await self._replay(job_id, merger.position)
                for event in merger.stored(replay):
                    yield event
                if not (merger.ended or replay.more):
                    for event in merger.recent(await self._recent(job_id, merger.position)):
                        yield event
                if merger.ended:
                    return
                if replay.more:
                    continue
                patient_until = self._now() + POLL_SECONDS
                while not (self._stopping or watcher.look_again):
                    live = merger.live()
                    if live is not None:
                        yield live
                        if merger.ended:
                            return
                        continue
                    watcher.wake.clear()
                    patience = None
                    if merger.has_gap or not self._redis_is_up:
                        patience = max(0.0, patient_until - self._now())
                    try:
                        async with asyncio.timeout(patience):
                            await watcher.wake.wait()
                    except TimeoutError:
                        break

    @contextlib.asynccontextmanager
    async def _watching(self, job_id: str, after: EventId) -> AsyncIterator[_Watcher]:
        watcher, key = _Watcher(after, self._instruments.stream_overruns.inc), stream_key(job_id)
        self._instruments.stream_clients.inc()
        self._watchers.setdefault(job_id, set()).add(watcher)
        self._watched.set()
        self._unwatched.clear()
        try:
            if key not in self._read_from:
                await self._begin_reading(key)
            yield watcher
        finally:
            self._instruments.stream_clients.dec()
            self._watchers[job_id].discard(watcher)
            if not self._watchers[job_id]:
                del self._watchers[job_id]
                self._read_from.pop(key, None)
            if not self._watchers:
                self._watched.clear()
                self._unwatched.set()

    async def _begin_reading(self, key: str) -> None:
        """Have the reader follow this stream from its present end; what is before it, `_recent` reads."""
        self._read_from[key] = "0-0"
        try:
            newest = await _in_time(self._redis.xrevrange(key, count=1))
            if newest and key in self._read_from and self._read_from[key] == "0-0":
                self._read_from[key] = newest[0][0]
            await _in_time(self._redis.xadd(self._bell, {"watch": key}, maxlen=1, approximate=False))
            await _in_time(self._redis.expire(self._bell, 3600))
        except _AWAY as error:
            self._redis_away(error)

    async def _replay(self, job_id: str, position: EventId) -> Replay:
        """Stored events after `position`; none while the database cannot be reached."""
        try:
            return await self._in_thread(lambda session: stored.after(session, job_id, position, BATCH))
        except DatabaseUnavailable as error:
            logger.warning("events of job %s are delayed: %s", job_id, error)
            await asyncio.sleep(POLL_SECONDS)
            return Replay([], more=False, ended=False)

    async def _recent(self, job_id: str, position: EventId) -> list[JobEvent]:
        """What Redis still holds after `position`: streamed already, perhaps not stored yet."""
        if self._stopping or not self._redis_is_up:
            return []
        try:
            query = self._redis.xrange(stream_key(job_id), min=f"({position}", count=10 * BATCH)
            entries = await _in_time(query)
        except _AWAY as error:
            self._redis_away(error)
            return []
        return list(_decoded(entries or []))

    async def _read_streams(self) -> None:
        while True:
            await self._watched.wait()
            try:
                streams = {self._bell: self._bell_from, **self._read_from}
                answer = await _in_time(self._redis.xread(streams, count=BATCH, block=BLOCK_MILLISECONDS))
            except _AWAY as error:
                self._redis_away(error)
                await asyncio.sleep(POLL_SECONDS)
                continue
            if not self._redis_is_up:
                logger.info("Redis is back: events are live again")
                self._redis_is_up = True
                self._nudge_all()
            for key, entries in answer.items() if isinstance(answer, dict) else answer or []:
                if key == self._bell:
                    self._bell_from = entries[-1][0]
                elif key in self._read_from:
                    self._read_from[key] = entries[-1][0]
                    for _, fields in entries:
                        self._note_lag(fields)
                    for event in _decoded(entries):
                        for watcher in self._watchers.get(job_of(key), ()):
                            watcher.offer(event)

    async def _look_at_jobs(self) -> None:
        """Notice what a stream does not tell: a job that was cancelled while queued or whose worker was lost, and
        events that are stored but that Redis has lost."""
        seen: dict[str, Standing] = {}
        while True:
            await self._watched.wait()
            try:
                now = await self._in_thread(lambda session: standings(session, list(self._watchers)))
            except DatabaseUnavailable:
                now = {}  # the clients' own queries log it
            except (StoreError, SQLAlchemyError) as error:
                logger.error("watched jobs cannot be looked at: %s", error)
                now = {}
                self._nudge_all()  # each client meets the fault itself, and is told to come back
            for job_id, state in now.items():
                if state != seen.get(job_id) or state.ended:
                    for watcher in self._watchers.get(job_id, ()):
                        # Whoever has all that is stored need not look: a worker that stores what it told live changes
                        # the state too, and two hundred clients would ask both stores each time.
                        if state.ended or state.newest > watcher.merger.position:
                            watcher.nudge()
            seen = now
            await asyncio.sleep(JOB_POLL_SECONDS)

    async def _in_thread(self, query: Callable[[Session], ResultT]) -> ResultT:
        def run() -> ResultT:
            with self._database.read() as session:
                return query(session)

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def _redis_away(self, error: Exception) -> None:
        if self._redis_is_up:
            logger.warning("Redis is unreachable; clients get their events from the database: %s", error)
            self._redis_is_up = False
            self._nudge_all()

    def _note_lag(self, fields: Mapping[str, str]) -> None:
        seconds = lag_seconds(fields)
        if seconds is not None:
            self._instruments.stream_lag_seconds.observe(seconds)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _nudge_all(self) -> None:
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.nudge()


async def _in_time(call: Awaitable[Any]) -> Any:
    """Raises TimeoutError when Redis does not answer: a network that swallows packets must not look like silence."""
    async with asyncio.timeout(REDIS_TIMEOUT_SECONDS):
        return await call


def _decoded(entries: Iterable[tuple[str, Mapping[str, str]]]) -> Iterator[JobEvent]:
    """The events of stream entries. An entry that is none is left out: the hole sends clients to the database."""
    for entry_id, fields in entries:
        try:
            yield decode(entry_id, fields)
        except (KeyError, BadEventId) as error:
            logger.warning("an entry %s of a stream in Redis is no event: %r", entry_id, error)
