"""One claimed attempt of a job: what every kind does alike, from the facts of its run to its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from app.settings import Settings
from app.store import leases, prices
from app.store.checkpoints import Checkpoint
from app.store.events import EventId, JobEvent
from gradsmith.rules import Rules
from models.machine import usable_cpus
from models.spec import JobSpec
from workers.facts import refuse_too_large, runtime_facts, same_bits
from workers.lifecycle import Cancelled, Claimed, Keeper, Preempted
from workers.recorder import Recorder

logger = logging.getLogger("gradsmith.worker")

# A preempted job may go on to the next place where it can be resumed, for this long.
PREEMPTION_SECONDS = 5.0


@dataclass
class Attempt:
    settings: Settings
    claimed: Claimed
    keeper: Keeper
    recorder: Recorder
    preempted: Callable[[], bool]
    """Turns true when this process should stop."""
    runtime: dict[str, Any] = field(default_factory=dict, init=False)
    """What computes the job and where: the one record of it. The job's row, its checkpoints and its card copy it."""
    identical: bool = field(default=True, init=False)
    """Whether it is, so far, what an uninterrupted run with this runtime would be."""
    _preempted_at: float | None = field(default=None, init=False)

    @property
    def cores(self) -> int:
        """Those that one job of this worker may keep busy."""
        return self.settings.worker_threads or usable_cpus()

    def settle(self, rule: Rules | None, spec: JobSpec) -> None:
        """Find out what will compute this job, and write it down; then refuse what this worker cannot hold.

        rule: None for a job that has none

        Raises DeviceUnavailable, BackendUnavailable and TooLittleMemory.
        """
        most_threads = max(1, self.cores // spec.resources.processes)
        self.runtime = runtime = runtime_facts(rule, spec, most_threads)
        lease, workspace = self.keeper.lease, self.claimed.job.workspace

        def write(session: Session, _again: bool) -> str:
            seconds = prices.predicted(session, workspace, spec)
            told = {} if seconds is None else {"predicted": seconds.told}
            return leases.ran_on(session, lease, runtime | told)

        self.keeper.note(self.keeper.write(write))
        refuse_too_large(spec, runtime, self.settings.worker_memory_bytes)

    def announce(self, resume: Checkpoint | None) -> None:
        """The first events of an attempt. `resumed` tells clients which points of earlier attempts still stand."""
        attempt = self.keeper.lease.attempt
        self.identical = resume is None or (resume.identical and same_bits(resume.runtime, self.runtime))
        self.recorder.begin(resume.step if resume else 0)
        if attempt > 1:
            data: dict[str, Any] = {"from_step": resume.step if resume else 0}
            if resume is not None:
                data["identical"] = self.identical
            self.recorder.say("resumed", data)
        self.recorder.say("status", {"status": "running", "attempt": attempt, "reason": None}, at_once=True)

    def look_around(self) -> None:
        """Between two events: is the job still wanted, and this process still ours? Raises Cancelled or Preempted."""
        if self.keeper.cancelling:
            raise Cancelled
        if self.preempted():
            now = time.monotonic()
            self._preempted_at = self._preempted_at or now
            if now - self._preempted_at > PREEMPTION_SECONDS:
                raise Preempted  # the next attempt goes on from the checkpoint before

    # --- how it ends, unless with its product --------------------------------------------------------------------

    def cancel(self) -> None:
        """The user asked for it."""
        self._end(lambda session, id_: leases.cancelled(session, self.keeper.lease, id_))

    def hand_back(self) -> None:
        """To the queue: this process should stop. It counts as no lost worker."""
        self._end(lambda session, _id: leases.release(session, self.keeper.lease))

    def retry(self, reason: str) -> None:
        """The next attempt goes on from the last checkpoint. It counts as a lost worker."""
        lease, most, backoff = self.keeper.lease, self.settings.max_lost_workers, self.settings.retry_backoff_seconds
        logger.warning("job %s attempt %d: %s", lease.job_id, lease.attempt, reason)
        self._end(lambda session, id_: leases.lost_part(session, lease, reason, most, backoff, id_))

    def fail(self, reason: str) -> None:
        self._end(lambda session, id_: leases.fail(session, self.keeper.lease, reason, id_))

    def _end(self, end: Callable[[Session, EventId], JobEvent]) -> None:
        """Store the job's last events, then `end`, in one transaction."""

        def finish(session: Session, last_events: list[JobEvent], done_id: EventId) -> JobEvent:
            leases.record(session, self.keeper.lease, last_events)
            return end(session, done_id)

        self.recorder.finish(finish)
