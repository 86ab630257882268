"""The SQL tables. Every table that has an owner carries its workspace.

Times are UTC. Ids are a prefix and a UUIDv7, so they sort by age. JSON is JSONB on Postgres.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

DEFAULT_WORKSPACE = "default"
SCHEMA_REVISION = "0017"  # the Alembic revision that these tables are; a test holds the two equal

JOB_STATUSES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled")
TERMINAL_STATUSES = ("succeeded", "failed", "cancelled")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC: `timestamptz` on Postgres, naive UTC text on SQLite, always aware in Python."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: give it a time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Json = JSON().with_variant(JSONB(), "postgresql")


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class WorkspaceRow(Base):
    __tablename__ = "workspaces"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class KeyRow(Base):
    """An API key: `gs_<id>_<secret>`, of which only the SHA-256 is kept."""

    __tablename__ = "keys"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    workspace: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str] = mapped_column(String(128))
    scopes: Mapped[list[str]] = mapped_column(Json)
    sha256: Mapped[str] = mapped_column(String(64))
    max_active_jobs: Mapped[int | None] = mapped_column(Integer)  # queued and running; NULL: the server's default
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (Index(None, "workspace", "id"),)


class JobRow(Base):
    """One piece of work. `attempt` counts from 1; every write of a worker carries the attempt it claimed (fencing)."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    workspace: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    kind: Mapped[str] = mapped_column(String(32))
    family: Mapped[str] = mapped_column(String(128))
    status: Mapped[str] = mapped_column(String(16))
    status_reason: Mapped[str | None] = mapped_column(Text)
    spec: Mapped[dict[str, Any]] = mapped_column(Json)
    labels: Mapped[dict[str, str]] = mapped_column(Json)  # `metadata` in the API; SQLAlchemy keeps that name to itself
    api_key: Mapped[str | None] = mapped_column(ForeignKey("keys.id"))  # whose share it counts on; NULL: unkeyed
    device: Mapped[str] = mapped_column(String(8))
    priority: Mapped[int] = mapped_column(Integer, default=0)
    queue_key: Mapped[int] = mapped_column(BigInteger)  # lowest is next: priority and age in one number (insertion.py)
    attempt: Mapped[int] = mapped_column(Integer, default=1)
    lost_workers: Mapped[int] = mapped_column(Integer, default=0)
    not_before: Mapped[datetime | None] = mapped_column(UtcDateTime)  # backoff after a lost worker
    lease_owner: Mapped[str | None] = mapped_column(String(255))
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    step: Mapped[int] = mapped_column(BigInteger, default=0)
    total: Mapped[int] = mapped_column(BigInteger, default=0)
    eta_seconds: Mapped[float | None] = mapped_column(Float)
    parent_job: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))  # the meta_train job of its own evaluation
    sweep: Mapped[str | None] = mapped_column(String(64))  # the sweep whose child it is
    trial: Mapped[int | None] = mapped_column(Integer)  # its number within that sweep, from 0
    rung: Mapped[int | None] = mapped_column(Integer)  # of successive halving, from 0
    swept: Mapped[dict[str, Any]] = mapped_column(Json, server_default=text("'{}'"))  # its values, by field
    optimizer: Mapped[str | None] = mapped_column(String(64))  # what it made, or what it measures
    runtime: Mapped[dict[str, Any]] = mapped_column(Json)  # torch version, threads, backend: set once claimed
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        CheckConstraint("status IN ('" + "', '".join(JOB_STATUSES) + "')", name="status"),
        CheckConstraint("attempt >= 1", name="attempt"),
        Index(None, "workspace", "id"),
        Index(None, "workspace", "family", "id"),
        Index(None, "status", "device", "api_key", "queue_key", "id"),
        Index(None, "lease_expires_at"),
        # counted at each scrape of /metrics: few jobs ever lose a worker
        Index(None, "lost_workers", postgresql_where=text("lost_workers > 0"), sqlite_where=text("lost_workers > 0")),
        Index(None, "parent_job"),
        # No trial is made twice, whoever makes it; and a sweep's children are found by it.
        Index(None, "sweep", "trial", unique=True),
    )


class ShareRow(Base):
    """How much one key has been served on one device, for fairness: the key with the lowest `served` is next."""

    __tablename__ = "shares"
    api_key: Mapped[str] = mapped_column(String(64), primary_key=True)  # "" stands for jobs without a key
    device: Mapped[str] = mapped_column(String(8), primary_key=True)
    served: Mapped[int] = mapped_column(BigInteger)


class OutboxRow(Base):
    """A doorbell that must be rung: written with the job, removed once RQ has it."""

    __tablename__ = "outbox"
    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class IdempotencyRow(Base):
    """What a POST with an `Idempotency-Key` answered, in the transaction of what it created. Kept 24 hours."""

    __tablename__ = "idempotency_keys"
    workspace: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    api_key: Mapped[str] = mapped_column(String(64), primary_key=True)  # "" on a server without keys
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))  # SHA-256 of method, path and canonical body
    status_code: Mapped[int] = mapped_column(Integer)
    headers: Mapped[dict[str, str]] = mapped_column(Json)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class JobEventRow(Base):
    """A durable event of a job that is not a curve point: status, log, checkpoint, resumed, done."""

    __tablename__ = "job_events"
    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    data: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class CurveChunkRow(Base):
    """Up to 4,096 points of a loss curve as packed columns; one is the sequence of the live event of each point."""

    __tablename__ = "curve_chunks"
    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    first_sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    last_sequence: Mapped[int] = mapped_column(BigInteger)
    first_step: Mapped[int] = mapped_column(BigInteger)
    last_step: Mapped[int] = mapped_column(BigInteger)
    points: Mapped[int] = mapped_column(Integer)
    columns: Mapped[bytes] = mapped_column(LargeBinary)


class CurveOverviewRow(Base):
    """The lowest and the highest of each few points of a chunk, in the chunk's own form: what a thinned curve is made
    of. A table of its own, because SQLite would read a row's columns to get at what stands behind them."""

    __tablename__ = "curve_overviews"
    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    first_sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    columns: Mapped[bytes] = mapped_column(LargeBinary)


class CheckpointRow(Base):
    """The newest checkpoint of a job. It holds a rule, its meta-optimizer and counters: some tens of kilobytes."""

    __tablename__ = "checkpoints"
    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer)
    step: Mapped[int] = mapped_column(BigInteger)
    sequence: Mapped[int] = mapped_column(BigInteger)  # of the `checkpoint` event: where the curve continues
    content: Mapped[bytes] = mapped_column(LargeBinary)
    runtime: Mapped[dict[str, Any]] = mapped_column(Json)  # of the attempt that wrote it
    identical: Mapped[bool] = mapped_column(Boolean)  # to what an uninterrupted run with that runtime would have
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class WeightsRow(Base):
    """Weights by the SHA-256 of their safetensors bytes."""

    __tablename__ = "weights"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    content: Mapped[bytes] = mapped_column(LargeBinary)


class OptimizerRow(Base):
    """One trained artifact, whose weights never change; versions count 1, 2, 3 ... within the family and workspace."""

    __tablename__ = "optimizers"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    workspace: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    family: Mapped[str] = mapped_column(String(128))
    version: Mapped[int] = mapped_column(Integer)
    # exactly one optimizer a job; NULL of one that was uploaded
    job: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), unique=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("weights.sha256"))
    validation_score: Mapped[float | None] = mapped_column(Float)  # `best` is the lowest of these; NULL never is
    automatic: Mapped[bool] = mapped_column(Boolean, server_default=true())  # whether `latest` and `best` may name it
    own_tasks: Mapped[bool] = mapped_column(Boolean, server_default=true())  # `best` compares no others
    criterion: Mapped[str] = mapped_column(String(128), server_default=text("''"))  # what its score is of
    tuned: Mapped[bool] = mapped_column(Boolean, server_default=false())  # a baseline, which `latest` passes over
    # of a learned schedule that an evaluation made: the optimizer in whose place `best` names it
    stands_for: Mapped[str | None] = mapped_column(String(64), index=True)
    card: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    description: Mapped[str] = mapped_column(Text, server_default=text("''"))  # its users' own words, which may change
    archived_at: Mapped[datetime | None] = mapped_column(UtcDateTime)  # lists, `latest` and `best` pass over it
    uploaded: Mapped[dict[str, Any] | None] = mapped_column(Json)  # by whom, from what, and what it was made with

    __table_args__ = (
        UniqueConstraint("workspace", "family", "version"),
        CheckConstraint("version >= 1", name="version"),
        Index(None, "workspace", "family", "validation_score"),
    )


class DeletedOptimizerRow(Base):
    """An optimizer that was deleted: its version is never given again, for clients may cache weights for ever."""

    __tablename__ = "deleted_optimizers"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    workspace: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    family: Mapped[str] = mapped_column(String(128))
    version: Mapped[int] = mapped_column(Integer)
    deleted_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (UniqueConstraint("workspace", "family", "version"),)


class FamilyRow(Base):
    """A family that the workspace declared, as a `FamilySpec`. It never changes. sha256: of the spec, as sorted JSON"""

    __tablename__ = "families"
    workspace: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    spec: Mapped[dict[str, Any]] = mapped_column(Json)
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class DatasetRow(Base):
    """A table that the workspace brought: the bytes are a blob, `inspection` is what was found in them."""

    __tablename__ = "datasets"
    workspace: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size: Mapped[int] = mapped_column(BigInteger)
    inspection: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class AliasRow(Base):
    """A name that users move between the optimizers of a family. `revision` counts its moves: it is the ETag."""

    __tablename__ = "aliases"
    workspace: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    family: Mapped[str] = mapped_column(String(128), primary_key=True)
    alias: Mapped[str] = mapped_column(String(64), primary_key=True)
    optimizer: Mapped[str] = mapped_column(ForeignKey("optimizers.id"), index=True)
    revision: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class EvaluationRow(Base):
    """The result of a job that measures. optimizer: what was measured; None where there was none."""

    __tablename__ = "evaluations"
    job: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    workspace: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    optimizer: Mapped[str | None] = mapped_column(ForeignKey("optimizers.id"), index=True)
    family: Mapped[str] = mapped_column(String(128))
    result: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class BaselineRunRow(Base):
    """A run of a baseline, by the SHA-256 of all that it depends on. baseline: its name, for people"""

    __tablename__ = "baseline_runs"
    workspace: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    baseline: Mapped[str] = mapped_column(String(64))
    job: Mapped[str] = mapped_column(ForeignKey("jobs.id"))  # which computed it
    content: Mapped[bytes] = mapped_column(LargeBinary)  # sealed
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
