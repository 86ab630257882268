"""The worker's side of a live stream."""

from __future__ import annotations

import logging
import time
from collections import deque

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from app.metrics.speed import SPEED_SECONDS, speed_key
from app.settings import Settings
from app.store.errors import LeaseLost
from app.store.events import EventId, JobEvent
from app.streams.wire import encode, stream_key

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 0.5  # the most that one call to Redis may hold up the training
UNSENT_EVENTS = 256  # kept for the moment when Redis is back; older ones reach clients by the database
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 5.0
KEPT_SECONDS = 24 * 3600  # a stream whose job writes no more is forgotten
KEPT_AFTER_DONE_SECONDS = 600


class Publisher:
    """Sends a job's events in order, each at most once. One thread.

    Redis being away never stops a job: events wait in a short buffer, and what does not fit is dropped, for all of it
    is durable elsewhere. Redis itself refuses an event of an attempt that is over, since entry ids only rise.
    """

    def __init__(self, settings: Settings, job_id: str) -> None:
        self._job_id = job_id
        self._key = stream_key(job_id)
        self._length = settings.stream_length
        self._unsent: deque[JobEvent] = deque(maxlen=UNSENT_EVENTS)
        self._pause_seconds = 0.0
        self._next_try = 0.0
        self._redis = redis.Redis.from_url(
            settings.resolved_redis_url,
            decode_responses=True,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )

    def publish(self, event: JobEvent) -> None:
        """Send `event` now, or as soon as Redis can be reached. Raises LeaseLost when a later attempt has written."""
        self._unsent.append(event)
        if time.monotonic() >= self._next_try:
            self._send()

    def tell_speed(self, worker: str, meta_steps_per_second: float | None) -> None:
        """Publishes how fast this worker trains, for operators; None once it has ended. Lost without Redis."""
        if time.monotonic() < self._next_try:
            return
        try:
            if meta_steps_per_second is None:
                self._redis.delete(speed_key(worker))
            else:
                self._redis.set(speed_key(worker), f"{meta_steps_per_second:.6g}", ex=SPEED_SECONDS)
        except RedisError as error:
            logger.debug("could not publish the speed of worker %s: %s", worker, error)

    def close(self) -> None:
        """A last try for what is unsent, then the connection closes. Never raises."""
        try:
            if self._unsent:
                self._send()
        except LeaseLost:
            logger.info("job %s: a later attempt writes the stream now", self._job_id)
        finally:
            self._redis.close()

    def _send(self) -> None:
        batch = list(self._unsent)
        pipeline = self._redis.pipeline(transaction=False)
        for event in batch:
            pipeline.xadd(self._key, encode(event), id=str(event.id), maxlen=self._length, approximate=True)  # type: ignore[arg-type]
        done = any(event.kind == "done" for event in batch)
        pipeline.expire(self._key, KEPT_AFTER_DONE_SECONDS if done else KEPT_SECONDS)
        try:
            answers = pipeline.execute(raise_on_error=False)
            refusals = [answer for answer in answers if isinstance(answer, ResponseError)]
            other = [answer for answer in answers if isinstance(answer, RedisError) and answer not in refusals]
            if other:  # such as LOADING: it reads its append-only file
                raise other[0]
            if refusals:
                self._judge(refusals[0], batch[0].id)
        except RedisError as error:
            if self._pause_seconds == 0.0:
                logger.warning("job %s: no live stream, Redis is unreachable: %s", self._job_id, error)
            self._pause_seconds = min(max(FIRST_PAUSE_SECONDS, 2 * self._pause_seconds), LONGEST_PAUSE_SECONDS)
            self._next_try = time.monotonic() + self._pause_seconds
            return
        if self._pause_seconds:
            logger.info("job %s: the live stream continues", self._job_id)
        self._pause_seconds = self._next_try = 0.0
        self._unsent.clear()

    def _judge(self, refusal: ResponseError, ours: EventId) -> None:
        """Redis refused an entry. Its id is not the highest: either this very entry arrived before an answer was lost,
        or a later attempt writes the stream. Any other refusal is passed on."""
        if "equal or smaller" not in str(refusal):
            raise refusal
        top = EventId.parse(self._redis.xinfo_stream(self._key)["last-generated-id"])
        if top.attempt > ours.attempt:
            self._unsent.clear()
            raise LeaseLost(self._job_id, ours.attempt)
