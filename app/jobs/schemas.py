"""A job as users see it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.store.tables import JOB_STATUSES
from models.spec import JobKind

JobStatus = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
assert JobStatus.__args__ == JOB_STATUSES  # type: ignore[attr-defined]


class Progress(BaseModel):
    step: int = Field(description="Meta-steps done, parts of an evaluation or a preview, or children that have ended.")
    total: int
    eta_seconds: float | None = Field(description="Null while nothing can be said.")


class TrialPlace(BaseModel):
    number: int = Field(description="Counts from 0.")
    rung: int = Field(description="Of successive halving, from 0; 0 without it.")
    values: dict[str, Any] = Field(description="What was swept, such as `recipe.meta_steps`, with its value here.")


class Job(BaseModel):
    id: str
    kind: JobKind
    family: str
    status: JobStatus
    status_reason: str | None = Field(
        description="In words: why it failed or was cancelled, what a queued job waits for (no worker, no Redis), or "
        "why `latest` and `best` will not name what a job that succeeded made."
    )
    attempt: int = Field(description="Counts from 1; a retry or a lost worker begins another.")
    queue_position: int | None = Field(description="0 is next; null unless queued.")
    progress: Progress
    optimizer: str | None = Field(
        description="What it made, or what it measures; of a sweep, what its best child made. Null for a preview."
    )
    parent: str | None = Field(description="Of an evaluation: the `meta_train` or `sweep` job that asked for it.")
    evaluation: str | None = Field(
        description="Of a `meta_train` or `sweep` job: the newest `evaluate` job of its result."
    )
    sweep: str | None = Field(description="Of a child of a sweep: that job.")
    trial: TrialPlace | None = Field(description="Of a child of a sweep: which it is. Null otherwise.")
    metadata: dict[str, str]
    spec: dict[str, Any] = Field(description="The resolved job: every value that it runs with, defaults included.")
    runtime: dict[str, Any] = Field(description="Where it ran: torch version, threads and so on; empty while queued.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
