"""The dispatcher: a thread in each API process that rings the workers' doorbells and finds what was lost.

The database says which job is next: keys take turns, and within a key priority and age decide. A doorbell is an RQ
job that carries a job's id and attempt and nothing else; few are out at a time, so that the order of work stays the
database's and not the queue's. All of it may happen twice, or in several processes at once: the claim decides.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue
from rq.exceptions import DuplicateJobError
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import as_text
from rq.worker_registration import get_keys
from sqlalchemy.exc import SQLAlchemyError

from app.commands import command
from app.jobs.rounds import Rounds, tell
from app.metrics.writable import refusal, try_write
from app.settings import Settings
from app.store import baseline_runs, idempotency, leases, outbox
from app.store.errors import StoreError
from app.store.leases import Lapse
from app.store.sessions import Database

logger = logging.getLogger("gradsmith.dispatch")

FUNCTION = "workers.run.run_job"
DEVICES = ("cpu", "gpu")
DOORBELLS_PER_WORKER = 2
FAILED_DOORBELL_SECONDS = 3600
LOOK_SECONDS = 1.0
QUIET_SECONDS, FULL_SECONDS = 0.05, 0.2  # between two rounds of which the first found nothing to do, or no room

REDIS_AWAY = "Redis is away; the job runs when it is back"


def redis_refuses(reason: str) -> str:
    return f"Redis {reason}; the job runs when it accepts them again"


def _unserved(device: str) -> str:
    return f"no worker serves the {device} queue; start one with {command(f'worker --queues {device}')}"


def doorbell_id(job_id: str, attempt: int) -> str:
    return f"{job_id}-{attempt}"


@dataclass
class Dispatcher:
    """`start()` and `stop()` it with the process. `wake()` after a commit saves a new job the wait for a round.
    `obstacle(device)` says what queued jobs of a device wait for, as the thread saw it last."""

    settings: Settings
    database: Database
    _connection: redis.Redis = field(init=False)
    _rounds: Rounds = field(init=False)
    _full: bool = field(default=False, init=False)  # whether the last round found jobs and no room for them
    _reconcile_at: float = field(default=0.0, init=False)
    _look_at: float = field(default=0.0, init=False)
    _missing: dict[str, set[tuple[str, int]]] = field(default_factory=dict, init=False)
    _obstacles: dict[str, str] = field(default_factory=dict, init=False)
    _workers: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._rounds = Rounds("dispatcher", logger, self._round)
        # The client's own retries would hold a round up for seconds; the next round is the retry.
        self._connection = redis.Redis.from_url(
            self.settings.resolved_redis_url,
            socket_timeout=5,
            socket_connect_timeout=2,
            retry=Retry(NoBackoff(), retries=1),
        )

    def start(self) -> None:
        self._rounds.start()

    def stop(self) -> None:
        """End the thread after its round."""
        self._rounds.stop()
        self._connection.close()

    def wake(self) -> None:
        """Begin the next round now. Safe from any thread."""
        self._rounds.wake()

    def obstacle(self, device: str) -> str | None:
        """Why a queued job of `device` cannot start, and what to do; None when all is well or nobody has looked yet.

        At most `LOOK_SECONDS` old, and never asks Redis: safe and cheap from any thread.
        """
        return self._obstacles.get(device)

    def workers(self, device: str) -> int | None:
        """How many workers serve the queue of `device`, as `obstacle` knows it; None when nobody has looked yet."""
        return self._workers.get(device)

    def look(self) -> None:
        """See whether Redis accepts writes and which queues have a worker, for `obstacle`. Raises nothing."""
        try:
            try_write(self._connection)
            served = {device: len(self._worker_states(self._queue(device))) for device in DEVICES}
        except redis.ResponseError as error:
            self._obstacles = dict.fromkeys(DEVICES, redis_refuses(refusal(error)))
        except redis.RedisError:  # `ring` and `reconcile` log it as soon as a job waits for it
            self._obstacles = dict.fromkeys(DEVICES, REDIS_AWAY)
        else:
            self._obstacles = {device: _unserved(device) for device in DEVICES if not served[device]}
            self._workers = served

    def ring(self) -> int:
        """One round: ring what is due, as far as the workers have room. Returns how many doorbells were rung.

        Raises redis.RedisError, StoreError or SQLAlchemyError when a store is away; nothing is lost then.
        """
        return sum(self._ring(device) for device in DEVICES)

    def reconcile(self) -> list[Lapse]:
        """Take over jobs whose lease ran out, and ring again for queued jobs that RQ has lost; forget old answers and
        old runs of baselines."""
        with self.database.write() as session:
            idempotency.purge(session)
            baseline_runs.purge(session)
            lapses = leases.lapsed(session, self.settings.max_lost_workers, self.settings.retry_backoff_seconds)
        for lapse in lapses:
            logger.warning(
                "job %s: its worker was lost; now %s, attempt %d", lapse.job_id, lapse.outcome, lapse.attempt
            )
            tell(self.settings, lapse.job_id, lapse.event)
        for device in DEVICES:
            self._find_lost_doorbells(device)
        return lapses

    # --- a round -------------------------------------------------------------------------------------------------

    def _ring(self, device: str) -> int:
        with self.database.read() as session:
            if outbox.idle(session, device):
                return 0
        queue = self._queue(device)
        room = self._room(queue)
        if room <= 0:
            self._full = True
            return 0
        with self.database.snapshot() as session:
            due = outbox.due(session, device, room)
        if not due:
            return 0
        # Not within a transaction: a Redis that hangs must not keep the database's writers waiting. Another dispatcher
        # may ring the same doorbells meanwhile, and RQ has each once.
        for job_id, attempt in due:
            self._enqueue(queue, job_id, attempt)
        with self.database.write() as session:
            outbox.rung(session, due)
        return len(due)

    def _queue(self, device: str) -> Queue:
        return Queue(device, connection=self._connection, serializer=JSONSerializer)

    def _room(self, queue: Queue) -> int:
        """How many doorbells may still go out: two for each registered worker (or for the first that will come),
        less those that wait in RQ and those being answered."""
        states = self._worker_states(queue)
        allowed = DOORBELLS_PER_WORKER * max(1, len(states))
        busy = sum(1 for state in states if state == b"busy")
        return allowed - int(queue.count) - busy

    def _worker_states(self, queue: Queue) -> list[bytes | None]:
        """The state of each live worker of the queue."""
        keys = sorted(get_keys(queue))
        with self._connection.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.hmget(key, "birth", "death", "state")
            found = pipeline.execute()
        return [state for birth, death, state in found if birth and not death]

    def _enqueue(self, queue: Queue, job_id: str, attempt: int) -> None:
        try:
            queue.enqueue_call(
                FUNCTION,
                args=(job_id, attempt),
                job_id=doorbell_id(job_id, attempt),
                unique=True,
                timeout=-1,  # RQ's alarm cannot interrupt a long C call; the lease watches over the job
                result_ttl=0,
                failure_ttl=FAILED_DOORBELL_SECONDS,
                description=job_id,
            )
        except DuplicateJobError:
            logger.debug("the doorbell of job %s attempt %d was out already", job_id, attempt)

    def _find_lost_doorbells(self, device: str) -> None:
        """A job that is queued in the database and in two rounds on end neither waits in RQ nor is being answered has
        lost its doorbell: Redis forgot it, or the worker that took it died before the claim."""
        with self.database.read() as session:
            queued = set(outbox.queued(session, device))
        if not queued:
            self._missing.pop(device, None)
            return
        queue = self._queue(device)
        known = set(queue.get_job_ids())
        missing = {(job, attempt) for job, attempt in queued if doorbell_id(job, attempt) not in known}
        for job_id, attempt in sorted(missing & self._missing.get(device, set())):
            try:
                self._ring_again(queue, job_id, attempt)
            except (redis.RedisError, StoreError, SQLAlchemyError):
                raise  # a store is away: the next round is soon enough for all of them
            except Exception:
                logger.exception("the doorbell of job %s attempt %d cannot be rung again", job_id, attempt)
        self._missing[device] = missing

    def _ring_again(self, queue: Queue, job_id: str, attempt: int) -> None:
        taken = self._forget(
            queue, job_id, attempt
        )  # or `unique` would take what is left of it for the doorbell itself
        with self.database.write() as session:
            if not outbox.ring_again(session, job_id, attempt):
                return
        if taken:  # by one that starts slowly, more often than by one that died
            logger.info("job %s attempt %d was taken and is not claimed yet; ringing again", job_id, attempt)
        else:
            logger.warning("job %s attempt %d had lost its doorbell; ringing again", job_id, attempt)

    def _forget(self, queue: Queue, job_id: str, attempt: int) -> bool:
        """Delete what Redis has of a doorbell; whether there was any: it was taken from the queue then, and not lost.

        Not by RQ's Job.delete, which reads every part of the record and raises where one has expired before another.
        """
        name = doorbell_id(job_id, attempt)
        executions = ExecutionRegistry(name, self._connection)
        ids = self._connection.zrange(executions.key, 0, -1)
        begun = [Execution(as_text(one), name, self._connection) for one in ids]  # type: ignore[arg-type]
        with self._connection.pipeline() as pipeline:
            pipeline.delete(Job.key_for(name), executions.key, *(execution.key for execution in begun))
            for execution in begun:
                queue.started_job_registry.remove_execution(execution, pipeline=pipeline)
            deleted, *_ = pipeline.execute()
        return bool(deleted)

    # --- the thread ----------------------------------------------------------------------------------------------

    def _round(self) -> None:
        if time.monotonic() >= self._look_at:
            self.look()
            self._look_at = time.monotonic() + LOOK_SECONDS
        self._full = False
        more = bool(self._rounds.attempt("dispatch", self.ring))
        if time.monotonic() >= self._reconcile_at:
            self._rounds.attempt("reconcile", self.reconcile)
            self._reconcile_at = time.monotonic() + self.settings.reconcile_interval_seconds
        if not more:
            # Hundreds of posts a second wake it as often: in vain, where the workers have no room.
            deaf = min(FULL_SECONDS if self._full else QUIET_SECONDS, self.settings.dispatch_interval_seconds)
            time.sleep(deaf)
            self._rounds.woken.wait(self.settings.dispatch_interval_seconds - deaf)
        self._rounds.woken.clear()
