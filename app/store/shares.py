"""Each key's fair share of the workers: whose job is next (start-time fair queueing: Goyal, Vin and Cheng, 1996).

`served` counts the jobs of a key that were sent to the workers of a device. The waiting key with the lowest is next, so
two keys take turns however many jobs either has queued; of equals, the one whose first job is older. A key that had
nothing queued starts level with the others (`Shares.start`): it is not owed what it did not ask for. Within a key jobs
go by priority and age. Jobs without a key count as one key.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, case, func, or_, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from app.store.sql import clock
from app.store.tables import JobRow, OutboxRow, ShareRow

UNKEYED = ""  # stands in `shares` for the jobs without a key

READY = and_(JobRow.status == "queued", or_(JobRow.not_before.is_(None), JobRow.not_before <= clock()))


@dataclass(frozen=True)
class Shares:
    """What each key was served on one device."""

    served: Mapping[str, int]

    def start(self, key: str) -> int:
        """The turn of the next job of `key`; the one after it has the next turn, and so on. Lower turns go first.

        This is the key's virtual start time. Turns are granted in rising order, so the largest `served`, less one, is
        the current virtual time; a key that was idle joins there.
        """
        return max(self.served.get(key, 0), max(self.served.values(), default=1) - 1)


def shares(session: Session, device: str) -> Shares:
    rows = session.execute(select(ShareRow.api_key, ShareRow.served).where(ShareRow.device == device))
    return Shares({key: served for key, served in rows})  # noqa: C416  (a row is no pair to mypy)


def next_doorbells(session: Session, device: str, limit: int) -> list[tuple[str, int]]:
    """Up to `limit` (job id, attempt) that are to be rung now, next first.

    Reads the first jobs of each key by an index, never the whole queue.
    """
    found = shares(session, device)
    turns = [(found.start(key), *first, key) for key, first in _firsts(session, device).items()]
    heapq.heapify(turns)
    lines: dict[str, deque[tuple[int, str, int]]] = {}
    chosen: list[tuple[str, int]] = []
    while turns and len(chosen) < limit:
        turn, _, _, key = heapq.heappop(turns)
        if key not in lines:
            lines[key] = deque(
                (order, job_id, attempt)
                for order, job_id, attempt in session.execute(_line(device, _is_key(key)).limit(limit - len(chosen)))
            )
        if lines[key]:  # not so when they were cancelled since the first query
            _, job_id, attempt = lines[key].popleft()
            chosen.append((job_id, attempt))
        if lines[key]:
            heapq.heappush(turns, (turn + 1, *lines[key][0][:2], key))
    return chosen


def charge(session: Session, job_ids: Sequence[str]) -> None:
    """These jobs were sent to the workers: each counts once for its key and device."""
    sent = Counter(
        (key or UNKEYED, device)
        for key, device in session.execute(select(JobRow.api_key, JobRow.device).where(JobRow.id.in_(job_ids)))
    )
    insert = postgresql_insert if session.get_bind().dialect.name == "postgresql" else sqlite_insert
    # Once, before any is counted: a key that joins does so where the last round left the others.
    before = {device: shares(session, device) for _, device in sent}
    for key, device in sorted(sent):  # in one order everywhere: two dispatchers never wait for each other
        start = before[device].start(key)
        statement = insert(ShareRow).values(api_key=key, device=device, served=start + sent[key, device])
        # As it stands once this row is locked, not as it stood when `start` was read.
        at_least = case((ShareRow.served > start, ShareRow.served), else_=start)
        session.execute(
            statement.on_conflict_do_update(
                index_elements=[ShareRow.api_key, ShareRow.device], set_={"served": at_least + sent[key, device]}
            )
        )


def _firsts(session: Session, device: str) -> dict[str, tuple[int, str]]:
    """Key -> (queue key, id) of its first job that is to be rung."""
    # One step of an index a key; DISTINCT would read every queued job.
    queued = (JobRow.status == "queued", JobRow.device == device)
    least = select(func.min(JobRow.api_key).label("key")).where(*queued).cte("waiting", recursive=True)
    following = select(func.min(JobRow.api_key)).where(*queued, JobRow.api_key > least.c.key).scalar_subquery()
    waiting = least.union_all(select(following).where(least.c.key.is_not(None)))
    first = _line(device, JobRow.api_key == waiting.c.key).with_only_columns(JobRow.id).limit(1).scalar_subquery()
    firsts = select(waiting.c.key, first.label("job")).subquery()
    found = session.execute(select(firsts.c.key, JobRow.queue_key, JobRow.id).join(JobRow, JobRow.id == firsts.c.job))
    by_key = {key: (order, job_id) for key, order, job_id in found}
    unkeyed = session.execute(_line(device, _is_key(UNKEYED)).limit(1)).first()
    if unkeyed is not None:
        by_key[UNKEYED] = (unkeyed[0], unkeyed[1])
    return by_key


def _line(device: str, of_key: ColumnElement[bool]) -> Select[int, str, int]:
    """The jobs of a key that are to be rung, in their order."""
    return (
        select(JobRow.queue_key, JobRow.id, JobRow.attempt)
        .join(OutboxRow, and_(OutboxRow.job == JobRow.id, OutboxRow.attempt == JobRow.attempt))
        .where(READY, JobRow.device == device, of_key)
        .order_by(JobRow.queue_key, JobRow.id)
    )


def _is_key(key: str) -> ColumnElement[bool]:
    return JobRow.api_key.is_(None) if key == UNKEYED else JobRow.api_key == key
