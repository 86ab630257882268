"""Where queued jobs stand: how many are served before each, in the turns that `app.store.shares` gives.

A short queue is read anew for every answer. A long one is read once a second at most, whoever asks; what was queued
since is looked up by its id. So an answer costs the same whether ten jobs wait or ten thousand, and it is at most that
second old.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import and_, bindparam, select
from sqlalchemy.orm import Session

from app.store.shares import UNKEYED, Shares, shares
from app.store.tables import JobRow, OutboxRow

SHORT = 32  # jobs: reading so many costs about what any query costs
KEPT_SECONDS = 1.0
CATCH_UP_SECONDS = 0.1  # between two looks for what was queued since
LARGEST_LOAD = 0.05  # of a core: a queue that takes long to read is read less often

Place = tuple[int, str]  # (queue key, job id): the order of jobs within a key


@dataclass
class Queue:
    """The queued jobs of one device: in `sent` those whose doorbell was rung, in `waiting` the others; by key, each in
    its order."""

    shares: Shares
    sent: dict[str, list[Place]] = field(default_factory=dict)
    waiting: dict[str, list[Place]] = field(default_factory=dict)
    newest: str = ""  # job id, of those that were read
    catch_up_at: float = 0.0  # by time.monotonic

    def __len__(self) -> int:
        return sum(len(line) for lines in (self.sent, self.waiting) for line in lines.values())

    def add(self, key: str, place: Place) -> None:
        """A job that was queued later."""
        if not self._holds(self.sent, key, place) and not self._holds(self.waiting, key, place):
            insort(self.waiting.setdefault(key, []), place)

    def position(self, key: str, place: Place) -> int:
        """How many jobs are served before it, when none comes meanwhile; it must be here."""
        if self._holds(self.sent, key, place):
            begins = {other: self.shares.start(other) - len(line) for other, line in self.sent.items()}
            return _before(self.sent, begins, key, place)
        begins = {other: self.shares.start(other) for other in self.waiting}
        return sum(map(len, self.sent.values())) + _before(self.waiting, begins, key, place)

    @staticmethod
    def _holds(lines: Mapping[str, list[Place]], key: str, place: Place) -> bool:
        line = lines.get(key, [])
        index = bisect_left(line, place)
        return index < len(line) and line[index] == place


def _before(lines: Mapping[str, list[Place]], begins: Mapping[str, int], key: str, place: Place) -> int:
    index = bisect_left(lines[key], place)
    turn = begins[key] + index
    before = index
    for other, line in lines.items():
        if other == key:
            continue
        its_index = turn - begins[other]  # of its job with the same turn
        before += min(max(its_index, 0), len(line))
        if 0 <= its_index < len(line) and line[its_index] < place:
            before += 1
    return before


# Made once: an answer to POST /jobs asks both.
_ALL = (
    select(JobRow.api_key, JobRow.queue_key, JobRow.id, OutboxRow.job.is_(None))
    .outerjoin(OutboxRow, and_(OutboxRow.job == JobRow.id, OutboxRow.attempt == JobRow.attempt))
    .where(JobRow.status == "queued", JobRow.device == bindparam("device"))
    .order_by(JobRow.api_key, JobRow.queue_key, JobRow.id)  # as the index has them
)
_SINCE = select(JobRow.api_key, JobRow.queue_key, JobRow.id).where(
    JobRow.id > bindparam("newest"), JobRow.status == "queued", JobRow.device == bindparam("device")
)


def read(session: Session, device: str) -> Queue:
    """The queue as it stands in this transaction."""
    queue = Queue(shares(session, device))
    for key, order, job_id, was_rung in session.execute(_ALL, {"device": device}):
        (queue.sent if was_rung else queue.waiting).setdefault(key or UNKEYED, []).append((order, job_id))
        queue.newest = max(queue.newest, job_id)
    return queue


class Queues:
    """The queues of all devices as this process has read them. Threads share it: while one of them reads a long queue
    anew, the others answer from what was read before, and none waits for another's question to the database."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[Queue, float]] = {}  # device -> queue, until when it may be used
        self._reading: set[str] = set()  # devices whose long queue a thread is reading anew

    def positions(self, session: Session, jobs: Iterable[JobRow]) -> dict[str, int]:
        """How many jobs are served before each of those that are queued, by id."""
        by_device: dict[str, list[JobRow]] = {}
        for job in jobs:
            if job.status == "queued":
                by_device.setdefault(job.device, []).append(job)
        positions: dict[str, int] = {}
        for device, wanted in by_device.items():
            queue = self._of(session, device)
            self._catch_up(session, device, queue, wanted)
            with self._lock:
                for job in wanted:  # also older ones that came back, and of transactions that ended late
                    queue.add(job.api_key or UNKEYED, (job.queue_key, job.id))
                positions |= {job.id: queue.position(job.api_key or UNKEYED, (job.queue_key, job.id)) for job in wanted}
        return positions

    def _of(self, session: Session, device: str) -> Queue:
        began = time.monotonic()
        with self._lock:
            kept = self._kept.get(device)
            if kept is not None and (began < kept[1] or device in self._reading):
                return kept[0]
            mine = kept is not None
            if mine:
                self._reading.add(device)
        try:
            queue = read(session, device)
            now = time.monotonic()
            with self._lock:
                if len(queue) > SHORT:
                    self._kept[device] = queue, now + max(KEPT_SECONDS, (now - began) / LARGEST_LOAD)
                else:
                    self._kept.pop(device, None)
        finally:
            if mine:
                with self._lock:
                    self._reading.discard(device)
        return queue

    def _catch_up(self, session: Session, device: str, queue: Queue, wanted: Sequence[JobRow]) -> None:
        """Have what was queued since the queue was read, when a job is asked for that is newer."""
        with self._lock:
            now, newest = time.monotonic(), queue.newest
            if now < queue.catch_up_at or all(job.id <= newest for job in wanted):
                return
            queue.catch_up_at = now + CATCH_UP_SECONDS
        since = session.execute(_SINCE, {"newest": newest, "device": device}).all()
        with self._lock:
            for key, order, job_id in since:
                queue.add(key or UNKEYED, (order, job_id))
                queue.newest = max(queue.newest, job_id)
