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


class JobPrice(BaseModel):
    predicted_seconds: float | None = Field(
        description="What its worker predicted when it began; null where nothing like it had been measured."
    )
    actual_seconds: float | None = Field(description="What its last attempt took; null until it has ended.")
    rests_on: list[str] = Field(description="Where the prediction comes from, in words.")


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
    price: JobPrice | None = Field(description="Predicted and actual seconds; null while it is queued.")
    metadata: dict[str, str]
    spec: dict[str, Any] = Field(description="The resolved job: every value that it runs with, defaults included.")
    runtime: dict[str, Any] = Field(description="Where it ran: torch version, threads and so on; empty while queued.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class PredictedSeconds(BaseModel):
    training: float = Field(description="Of all meta-steps: `recipe.patience` may end a run earlier.")
    selection: float = Field(description="Validations that choose the weights.")
    tuning: float = Field(description="Tuning the baselines; those that an earlier evaluation has left cost nothing.")
    evaluation: float = Field(description="All else that the evaluation does.")
    total: float


class QueueTime(BaseModel):
    jobs: int = Field(description="How many wait or run on such workers now.")
    workers: int | None = Field(description="How many workers serve this queue; null while nobody has looked.")
    seconds: float | None = Field(description="Until a worker is free for it; null where that cannot be said.")


class PriceError(BaseModel):
    p10: float | None
    p50: float | None
    p90: float | None = Field(description="Nine of ten jobs took no more than this times what was predicted.")
    jobs: int = Field(description="Finished jobs that it was measured on, the newest 200 at most.")


class Price(BaseModel):
    """What a job is predicted to need. Nothing was queued."""

    kind: JobKind
    family: str
    coordinates_per_task: int
    memory_bytes: int = Field(description="Of the job and the evaluation behind it, whichever is larger.")
    seconds: PredictedSeconds | None = Field(description="Null where nothing like it was measured here yet.")
    rests_on: list[str] = Field(description="Which jobs, or which calibration, measured what the seconds rest on.")
    advice: str | None = Field(description="How to learn the seconds, where they are null.")
    error: PriceError = Field(description="Actual over predicted seconds of your finished jobs.")
    queue: QueueTime
    notes: list[str]
    spec: dict[str, Any] = Field(description="The resolved job: every value that it would run with.")


class FamilyPreview(BaseModel):
    job: Job = Field(description="The preview, which a worker runs.")
    picture: str = Field(description="Where the curve of tuned Adam is when the job has succeeded, as a PNG.")
    report: str = Field(description="All that it measured, with the price.")
    price: Price = Field(description="Of training on the family, from what was measured before this preview.")
