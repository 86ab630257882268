"""Every change of a job's status, in one table. A terminal status never changes, save by `retry`."""

from __future__ import annotations

from typing import Literal

from app.store.tables import JobRow

Status = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]

ALLOWED: dict[str, frozenset[str]] = {
    # claimed; cancelled before anyone claimed it; its worker lost before the claim: another attempt, or the end
    "queued": frozenset({"running", "cancelled", "queued", "failed"}),
    "running": frozenset(
        {"cancelling", "succeeded", "failed", "cancelled", "queued"}
    ),  # queued: preempted, worker lost
    "cancelling": frozenset({"cancelled"}),  # whatever the worker says at the end
    "succeeded": frozenset(),
    "failed": frozenset({"queued", "running"}),  # retry; running: of a job that no worker runs
    "cancelled": frozenset({"queued", "running"}),
}
ACTIVE = ("running", "cancelling")  # a worker holds the job, if one runs it


def move(job: JobRow, status: Status, reason: str | None = None) -> None:
    """Set the status of a locked row. A change that the table lacks is a bug of ours, not of the caller."""
    if status not in ALLOWED[job.status]:
        raise AssertionError(f"job {job.id} cannot go from {job.status} to {status}")
    job.status = status
    job.status_reason = reason
