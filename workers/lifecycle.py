"""A job's life in this process: claim, hold the lease, see a cancel, leave when another attempt owns the job.

A thread renews the lease while the main thread computes, since one long C call may outlast it. Every write is fenced
by the store. If the database is unreachable for less than the lease, writes wait for it.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.settings import Settings
from app.store import checkpoints, events, leases
from app.store.checkpoints import Checkpoint
from app.store.errors import DatabaseUnavailable, LeaseLost, StoreError
from app.store.events import EventId
from app.store.jobs import spec_of
from app.store.leases import Lapse, Lease
from app.store.sessions import Database
from app.store.tables import JobRow
from models.errors import ModelsError
from models.spec import JobSpec
from workers.children import LEASE_LOST, STUCK

logger = logging.getLogger("gradsmith.worker")

T = TypeVar("T")
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0
REPORT_SECONDS = 30.0
CANCEL_PATIENCE_SECONDS = 5.0


class Cancelled(Exception):
    """The user asked for the job's end."""


class Preempted(Exception):
    """This process was asked to stop: the job goes back to the queue."""


def patiently(
    database: Database,
    operation: Callable[[Session, bool], T],
    deadline: Callable[[], float],
    pause: float = FIRST_PAUSE_SECONDS,
) -> T:
    """`operation(session, again)` in one write transaction, tried again while the database is away.

    `again` is True once an earlier try may have been committed although its answer was lost. `deadline()` is when to
    give up, by time.monotonic; then the last DatabaseUnavailable or OperationalError is raised.
    """
    again = False
    while True:
        try:
            with database.write() as session:
                return operation(session, again)
        except (DatabaseUnavailable, OperationalError) as error:
            if time.monotonic() + pause > deadline():
                raise
            if not again:
                logger.warning("waiting for the database: %s", str(error).splitlines()[0])
            again = True
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def new_owner(worker: str) -> str:
    """A name for one lease, that nobody else has: an attempt's rights end with the process that claimed it."""
    return f"{worker}:{secrets.token_hex(6)}"


@dataclass(frozen=True)
class Claimed:
    """A job that is ours now, where its events go on, and the newest checkpoint of its earlier attempts.

    spec: or why this machine cannot read it
    """

    job: JobRow
    spec: JobSpec | ModelsError
    next_id: EventId
    checkpoint: Checkpoint | None


def claim(database: Database, settings: Settings, lease: Lease, runtime: dict[str, Any]) -> Claimed | None:
    """Claim, and note what is known of `runtime` so far.

    None when the job is not for us: another was quicker, or it is not queued any more.
    """
    deadline = time.monotonic() + settings.lease_seconds

    def operation(session: Session, again: bool) -> Claimed | None:
        found = session.get(JobRow, lease.job_id)
        if found is None:
            return None
        spec: JobSpec | ModelsError
        try:
            spec = spec_of(found)
        except ModelsError as error:
            spec = error
        job = leases.claim(session, lease, settings.lease_seconds, runtime)
        if job is None and again:  # our claim may stand already: nobody else has this owner's name
            with contextlib.suppress(LeaseLost):
                job = leases.held(session, lease)
        if job is None:
            return None
        next_id = events.next_id(session, lease.job_id, lease.attempt)
        return Claimed(job, spec, next_id, checkpoints.newest(session, lease.job_id))

    return patiently(database, operation, lambda: deadline)


def still_queued(database: Database, job_id: str, attempt: int) -> bool:
    """Whether this doorbell is worth a child: not when it rang twice, or when the job was cancelled. The claim decides;
    so a database that is away answers yes."""
    try:
        with database.read() as session:
            job = session.get(JobRow, job_id)
            return job is not None and (job.attempt, job.status) == (attempt, "queued")
    except (StoreError, OperationalError):
        return True


def report_lost(database: Database, settings: Settings, lease: Lease, reason: str) -> Lapse | None:
    """A job's process ended without a word, before its claim or after: count a lost worker and end its lease now, so
    that the job runs again without waiting for the lease.

    Does nothing when the job had ended or moved on. Never raises: without a database the lease runs out by itself, and
    the reconciler rings again for what nobody had claimed.
    """
    deadline = time.monotonic() + min(REPORT_SECONDS, settings.lease_seconds)

    def operation(session: Session, again: bool) -> Lapse | None:  # noqa: ARG001
        return leases.lost(session, lease, reason, settings.max_lost_workers, settings.retry_backoff_seconds)

    try:
        return patiently(database, operation, lambda: deadline)
    except (StoreError, OperationalError) as error:
        logger.warning("job %s waits until its lease expires: %s", lease.job_id, str(error).splitlines()[0])
        return None


def leave(lease: Lease) -> None:
    """End this process at once: another attempt owns the job, and nothing that we could still do is wanted."""
    logger.warning("lost the lease of job %s attempt %d; leaving", lease.job_id, lease.attempt)
    os._exit(LEASE_LOST)


def give_up(lease: Lease) -> None:
    """End this process: its one long computation keeps a cancelled job from ending. The parent reports it lost, and a
    lost job that is being cancelled is cancelled."""
    logger.warning("job %s is cancelled in the middle of a long meta-step", lease.job_id)
    os._exit(STUCK)


class Keeper:
    """Holds a claimed job's lease while it is open as a context, and knows whether the user wants it cancelled.

    `on_lost` is called in the renewing thread when the lease is lost; by default the process ends there. So is
    `on_stuck` when the job was cancelled CANCEL_PATIENCE_SECONDS ago and the main thread has not come round to it, and
    `on_renewed` after each renewal.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        lease: Lease,
        claimed_at: float,
        on_lost: Callable[[Lease], None] = leave,
        on_stuck: Callable[[Lease], None] = give_up,
        on_renewed: Callable[[], None] = lambda: None,
    ) -> None:
        self.lease = lease
        self._database = database
        self._settings = settings
        self._on_lost = on_lost
        self._on_stuck = on_stuck
        self._on_renewed = on_renewed
        self._renewed = claimed_at  # time.monotonic() before the claim: the lease runs out no earlier than we think
        self._cancelling_since: float | None = None
        self._ending = False
        self._stop = threading.Event()
        self._thread = threading.Thread(
            # what is bound for the log here is bound there too
            target=contextvars.copy_context().run,
            args=(self._renew_until_stopped,),
            name="lease",
            daemon=True,
        )

    @property
    def cancelling(self) -> bool:
        return self._cancelling_since is not None

    @property
    def deadline(self) -> float:
        """When the lease runs out, by time.monotonic, unless it is renewed before."""
        return self._renewed + self._settings.lease_seconds

    def write(self, operation: Callable[[Session, bool], T]) -> T:
        """A fenced write by the main thread, patient as `patiently`. Raises LeaseLost."""
        return patiently(self._database, operation, lambda: self.deadline)

    def ending(self) -> None:
        """The main thread is about to end the job: from here on a lease that is gone may be of its own doing, and it
        sees for itself."""
        self._ending = True

    def note(self, status: str) -> None:
        """Take in the job's status that a fenced write answered."""
        if status == "cancelling" and self._cancelling_since is None:
            self._cancelling_since = time.monotonic()

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _renew_until_stopped(self) -> None:
        # One small UPDATE does both: it renews, and its answer tells of a cancel.
        pause = min(self._settings.cancel_poll_seconds, self._settings.lease_renewal_seconds)
        while not self._stop.wait(pause):
            began = time.monotonic()
            try:
                with self._database.write() as session:
                    self.note(leases.renew(session, self.lease, self._settings.lease_seconds))
                self._renewed = began
                self._on_renewed()
                since = self._cancelling_since
                if since is not None and not self._ending and began - since > CANCEL_PATIENCE_SECONDS:
                    self._on_stuck(self.lease)
                    return
            except LeaseLost:
                if not self._ending:
                    self._on_lost(self.lease)
                return
            except (StoreError, OperationalError) as error:
                if time.monotonic() > self.deadline:
                    logger.warning("the database has been unreachable for longer than the lease: %s", error)
                    self._on_lost(self.lease)
                    return
