"""One worker process: `python -m workers.main --queues cpu`. It takes doorbells from RQ and has a child run each job.

RQ brings the doorbell and nothing more. What became of a job is in the database; who retries is the store. So this
worker keeps of RQ's its queue, its registration and its heartbeats, and replaces how a job is run: no fork of a process
that holds connections, no job code named by Redis, and no dependence on Redis while a job runs.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import redis
from pydantic import ValidationError
from pydantic_settings import SettingsError
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue, Worker
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus
from rq.worker_registration import register

from app import logs
from app.settings import Settings, explain
from app.store.errors import LeaseLost, StoreError
from app.store.leases import Lease
from app.store.sessions import Database
from app.streams import Publisher
from workers.children import DONE, LEASE_LOST, JobProcess, Nursery
from workers.lifecycle import new_owner, report_lost, still_queued

logger = logging.getLogger("gradsmith.worker")

FUNCTION = "workers.run.run_job"
KILL_AFTER_SECONDS = 10.0
HEARTBEAT_SECONDS = 10.0
POLL_SECONDS = 0.05
RECONNECT_SECONDS = 1.0
# RQ blocks on its queue for this less 15 s, and forgets a silent worker after this and 60 s.
REGISTRATION_SECONDS = 30


class JobWorker(Worker):
    """An RQ worker that runs each job in a child of `nursery` and outlives Redis."""

    max_connection_wait_time = 2.0
    log_result_lifespan = False

    def __init__(
        self,
        queues: Sequence[str],
        name: str,
        connection: redis.Redis,
        nursery: Nursery,
        database: Database,
        settings: Settings,
    ) -> None:
        super().__init__(
            list(queues),
            name=name,
            connection=connection,
            serializer=JSONSerializer,
            worker_ttl=REGISTRATION_SECONDS,
            log_job_description=False,
        )
        self._nursery = nursery
        self._database = database
        self._settings = settings
        self._child: JobProcess | None = None
        self._working = False
        self._stops = 0

    # --- running a job -------------------------------------------------------------------------------------------

    def execute_job(self, job: Job, queue: Queue) -> None:  # noqa: ARG002
        """Run one doorbell's job to its end. Redis may come and go meanwhile."""
        self._working = True
        try:
            execution = self._begin(job)
            order = _order(job)
            if order is not None and still_queued(self._database, *order):
                with logs.bound_contextvars(job_id=order[0], attempt=order[1]):
                    self._run(*order, job, execution)
            self._finish(job, execution)
        finally:
            self._working = False

    def _run(self, job_id: str, attempt: int, job: Job, execution: Execution | None) -> None:
        self._child = child = self._nursery.take()
        self._horse_pid = child.pid
        lease = Lease(job_id, attempt, new_owner(self.name))
        child.give(lease)
        self._nursery.keep_ready()  # the next one imports while this job runs
        next_heartbeat = time.monotonic() + HEARTBEAT_SECONDS
        kill_at: float | None = None
        while not child.wait(POLL_SECONDS):
            now = time.monotonic()
            if self._stops and kill_at is None:
                child.terminate()
                kill_at = now + KILL_AFTER_SECONDS
            elif kill_at is not None and (now > kill_at or self._stops > 1):
                child.kill("it did not stop in time")
            elif (reason := child.hangs()) is not None:
                child.kill(reason)
            elif now > next_heartbeat:
                next_heartbeat = now + HEARTBEAT_SECONDS
                self._nursery.keep_ready()
                self._renew_registration(job, execution)
        child.kill()  # what the job may have started and left
        self._child, self._horse_pid = None, 0
        self._tell_loss(child, lease)

    def _tell_loss(self, child: JobProcess, lease: Lease) -> None:
        """Count a lost worker, where the job's process ended in any other way than with the job."""
        status = child.returncode
        if status in (DONE, LEASE_LOST):
            return
        logger.warning(
            "the process that ran job %s attempt %d ended with %s: it %s",
            *(lease.job_id, lease.attempt, status, child.ending()),
        )
        if self._stops and not child.begun:
            return  # it ended with this worker, and the job was nobody's yet
        reason = f"the process of attempt {lease.attempt} on {self.name} {child.ending()}"
        lapse = report_lost(self._database, self._settings, lease, reason)
        if lapse is not None:
            publisher = Publisher(self._settings, lapse.job_id)
            with contextlib.closing(publisher), contextlib.suppress(LeaseLost):  # another was quicker to take it
                publisher.publish(lapse.event)

    def _begin(self, job: Job) -> Execution | None:
        with self._without_redis("the start of a job"):
            execution = self.prepare_execution(job)
            if len(self.queues) == 1:  # then RQ's dequeue left it in the intermediate queue
                self.queues[0].intermediate_queue.remove(job.id)
            return execution
        return None

    def _finish(self, job: Job, execution: Execution | None) -> None:
        """The doorbell has been answered: leave nothing of it in Redis, whatever became of the job."""
        self.executions.clear()
        with self._without_redis("the end of a job"):
            with self.connection.pipeline() as pipeline:
                self.cleanup_execution(job, pipeline=pipeline, execution=execution)
                pipeline.delete(job.key)  # not job.delete(): it raises when Redis has lost the job
                pipeline.execute()
            self.set_state(WorkerStatus.IDLE)

    def _renew_registration(self, job: Job, execution: Execution | None) -> None:
        with self._without_redis("heartbeat"):
            if execution is not None:
                self.maintain_heartbeats(job, execution)
            else:
                self.heartbeat()

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:  # noqa: ARG002
        """RQ's name for killing the child."""
        if self._child is not None:
            self._child.kill()

    # --- signals -------------------------------------------------------------------------------------------------

    def request_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """First SIGTERM or SIGINT: the child writes a checkpoint and hands its job back, then this worker ends.
        The second kills the child. No Redis here: a handler that waits for a lost connection would stop nothing."""
        self._stops += 1
        self._stop_requested = True
        if not self._working:
            raise StopRequested

    def _install_signal_handlers(self) -> None:
        signal.signal(signal.SIGINT, self.request_stop)
        signal.signal(signal.SIGTERM, self.request_stop)

    # --- living without Redis ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _without_redis(self, what: str) -> Iterator[None]:
        """Go on when Redis is away: all that RQ wants to note there can be lost."""
        try:
            yield
        except redis.RedisError as error:
            logger.debug("Redis is away at %s: %s", what, error)

    def set_state(self, state: str, pipeline: Any = None) -> None:
        self._state = state
        with self._without_redis("set_state"):
            super().set_state(state, pipeline=pipeline)

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Keep the registration, and make it again when Redis has lost it (a restart without its file)."""
        with self._without_redis("heartbeat"):
            if pipeline is None and not self.connection.hexists(self.key, "birth"):
                with self.connection.pipeline() as again:
                    again.hset(self.key, mapping=self.serialize())
                    register(self, again)
                    again.execute()
            super().heartbeat(timeout, pipeline=pipeline)

    def check_for_suspension(self, burst: bool) -> None:
        with self._without_redis("check_for_suspension"):
            super().check_for_suspension(burst)

    def run_maintenance_tasks(self) -> None:
        with self._without_redis("maintenance"):
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call]

    def subscribe(self) -> None:
        """No command channel: cancel is a row in the database, and RQ's stop command is SIGKILL."""

    def teardown(self) -> None:
        with self._without_redis("teardown"):
            super().teardown()  # type: ignore[no-untyped-call]


def _order(job: Job) -> tuple[str, int] | None:
    """The job id and attempt of a doorbell. Anything else in the queue is dropped: Redis never names what we run."""
    try:
        job_id, attempt = job.args
        if job.func_name == FUNCTION and isinstance(job_id, str) and isinstance(attempt, int):
            return job_id, attempt
    except Exception as error:  # noqa: BLE001  (RQ raises whatever the bytes in Redis provoke)
        logger.error("dropping RQ job %s: %s", job.id, error)
        return None
    logger.error("dropping RQ job %s: it calls %r, and only %s is ever run", job.id, job.func_name, FUNCTION)
    return None


def work(settings: Settings, queues: Sequence[str], name: str) -> None:
    """Work until SIGTERM or SIGINT."""
    stopped = False

    def stop(_signum: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        raise StopRequested

    nursery, database = Nursery(settings), Database(settings.resolved_database_url)
    # The client's own patience (seconds for each command) would keep us from watching the child.
    connection = redis.Redis.from_url(
        settings.resolved_redis_url, socket_connect_timeout=5, retry=Retry(NoBackoff(), retries=1)
    )
    generation = 0
    try:
        while not stopped:
            signal.signal(signal.SIGTERM, stop)
            signal.signal(signal.SIGINT, stop)
            nursery.keep_ready()
            try:
                # Redis may still hold the last registration, and RQ refuses a second of the same name.
                worker_name = name if generation == 0 else f"{name}.{generation}"
                worker = JobWorker(queues, worker_name, connection, nursery, database, settings)
                worker.work(logging_level="WARNING")
                stopped = worker._stop_requested
            except (redis.RedisError, ValueError) as error:
                if generation == 0:
                    logger.warning("waiting for Redis: %s", error)
            generation += 1
            if not stopped:
                time.sleep(RECONNECT_SECONDS)
    except StopRequested:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        nursery.close()
        database.close()
        connection.close()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workers.main", description="Run one worker process.")
    parser.add_argument("--queues", default="cpu", help="queues to work on, by comma: cpu, gpu (default: cpu)")
    parser.add_argument("--name", default=f"{socket.gethostname()}-{os.getpid()}", help="name in logs and leases")
    options = parser.parse_args(arguments)
    queues = [queue.strip() for queue in options.queues.split(",") if queue.strip()]
    unknown = [queue for queue in queues if queue not in ("cpu", "gpu")]
    if unknown or not queues:
        parser.error(f"--queues {options.queues}: there are the queues cpu and gpu")
    try:
        settings = Settings()
        logs.configure(settings.log_format, settings.log_level)
        logs.bind_contextvars(worker=options.name)
        work(settings, queues, options.name)
    except (ValidationError, SettingsError) as error:
        print(f"gradsmith-server: {explain(error)}", file=sys.stderr)
        return 2
    except StoreError as error:
        print(f"gradsmith-server: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
