"""Runs of baselines by what they depend on: tuned once per family, horizon and seed, then read by every evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app.store.leases import Lease, held
from app.store.sql import clock, insert_if_absent
from app.store.tables import BaselineRunRow
from models.seal import is_intact, seal, unseal

KEPT_SECONDS = 90 * 24 * 3600.0
LARGEST_BYTES = 16 * 2**20
"""A run of more tasks than this holds, 41,000 over 100 steps, is computed anew each time."""


@dataclass(frozen=True)
class Kept:
    """What was put under a key, and the job that computed it."""

    content: bytes
    job: str


def get(session: Session, workspace: str, key: str) -> Kept | None:
    """None where nothing was put under this key, or where a byte of it has changed."""
    row = session.get(BaselineRunRow, (workspace, key))
    if row is None or not is_intact(row.content):
        return None
    return Kept(unseal(row.content), row.job)


def put(session: Session, lease: Lease, key: str, baseline: str, content: bytes) -> None:
    """Keep it for the workspace of the lease's job, unless another job was quicker. Raises LeaseLost."""
    job = held(session, lease)
    if len(content) > LARGEST_BYTES:
        return
    row = session.get(BaselineRunRow, (job.workspace, key))
    if row is not None and not is_intact(row.content):
        session.delete(row)
        session.flush()
    insert_if_absent(
        session,
        BaselineRunRow,
        workspace=job.workspace,
        key=key,
        baseline=baseline,
        job=job.id,
        content=seal(content),
        created_at=clock(),
    )


def counts(session: Session) -> list[tuple[str, str, int, int]]:
    """Workspace, baseline, runs and their bytes, in the order of their names."""
    run = BaselineRunRow
    found = session.execute(
        select(run.workspace, run.baseline, func.count(), func.sum(func.length(run.content)))
        .group_by(run.workspace, run.baseline)
        .order_by(run.workspace, run.baseline)
    )
    return [(workspace, baseline, int(runs), int(size)) for workspace, baseline, runs, size in found]


def forget(session: Session, baselines: Sequence[str] = (), workspace: str | None = None) -> int:
    """Forget the runs of these baselines, or of all, in one workspace or in all; how many there were."""
    chosen = delete(BaselineRunRow)
    if baselines:
        chosen = chosen.where(BaselineRunRow.baseline.in_(baselines))
    if workspace is not None:
        chosen = chosen.where(BaselineRunRow.workspace == workspace)
    return int(session.execute(chosen).rowcount)  # type: ignore[attr-defined]


def purge(session: Session, older_than_seconds: float = KEPT_SECONDS) -> int:
    """Forget runs that were computed longer ago; how many there were."""
    purged = session.execute(delete(BaselineRunRow).where(BaselineRunRow.created_at < clock(-older_than_seconds)))
    return int(purged.rowcount)  # type: ignore[attr-defined]
