"""The first schema: workspaces, jobs and their doorbells, events, curves and checkpoints, and the registry.

Revision: 0001, the first.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Frozen here: a migration must not change when app.store.tables does.
Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "weights",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_weights")),
    )
    op.create_table(
        "workspaces",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workspaces")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("workspace", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=False),
        sa.Column("headers", Json, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name=op.f("fk_idempotency_keys_workspace")),
        sa.PrimaryKeyConstraint("workspace", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("workspace", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("family", sa.String(length=128), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=True),
        sa.Column("spec", Json, nullable=False),
        sa.Column("labels", Json, nullable=False),
        sa.Column("device", sa.String(length=8), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("queue_key", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lost_workers", sa.Integer(), nullable=False),
        sa.Column("not_before", Moment, nullable=True),
        sa.Column("lease_owner", sa.String(length=255), nullable=True),
        sa.Column("lease_expires_at", Moment, nullable=True),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("eta_seconds", sa.Float(), nullable=True),
        sa.Column("parent_job", sa.String(length=64), nullable=True),
        sa.Column("optimizer", sa.String(length=64), nullable=True),
        sa.Column("runtime", Json, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("started_at", Moment, nullable=True),
        sa.Column("finished_at", Moment, nullable=True),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_jobs_status"),
        ),
        sa.CheckConstraint("attempt >= 1", name=op.f("ck_jobs_attempt")),
        sa.ForeignKeyConstraint(["parent_job"], ["jobs.id"], name=op.f("fk_jobs_parent_job")),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name=op.f("fk_jobs_workspace")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index(op.f("ix_jobs_lease_expires_at"), "jobs", ["lease_expires_at"], unique=False)
    op.create_index(op.f("ix_jobs_parent_job"), "jobs", ["parent_job"], unique=False)
    op.create_index(
        op.f("ix_jobs_status_device_queue_key_id"), "jobs", ["status", "device", "queue_key", "id"], unique=False
    )
    op.create_index(op.f("ix_jobs_workspace_family_id"), "jobs", ["workspace", "family", "id"], unique=False)
    op.create_index(op.f("ix_jobs_workspace_id"), "jobs", ["workspace", "id"], unique=False)
    op.create_table(
        "checkpoints",
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("runtime", Json, nullable=False),
        sa.Column("identical", sa.Boolean(), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_checkpoints_job"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job", name=op.f("pk_checkpoints")),
    )
    op.create_table(
        "curve_chunks",
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("first_sequence", sa.BigInteger(), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.Column("first_step", sa.BigInteger(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("points", sa.Integer(), nullable=False),
        sa.Column("columns", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_curve_chunks_job"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job", "attempt", "first_sequence", name=op.f("pk_curve_chunks")),
    )
    op.create_table(
        "job_events",
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("data", Json, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_job_events_job"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job", "attempt", "sequence", name=op.f("pk_job_events")),
    )
    op.create_table(
        "optimizers",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("workspace", sa.String(length=64), nullable=False),
        sa.Column("family", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("validation_score", sa.Float(), nullable=True),
        sa.Column("card", Json, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.CheckConstraint("version >= 1", name=op.f("ck_optimizers_version")),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_optimizers_job")),
        sa.ForeignKeyConstraint(["sha256"], ["weights.sha256"], name=op.f("fk_optimizers_sha256")),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name=op.f("fk_optimizers_workspace")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_optimizers")),
        sa.UniqueConstraint("job", name=op.f("uq_optimizers_job")),
        sa.UniqueConstraint("workspace", "family", "version", name=op.f("uq_optimizers_workspace_family_version")),
    )
    op.create_index(
        op.f("ix_optimizers_workspace_family_validation_score"),
        "optimizers",
        ["workspace", "family", "validation_score"],
        unique=False,
    )
    op.create_table(
        "outbox",
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_outbox_job"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job", "attempt", name=op.f("pk_outbox")),
    )
    op.create_table(
        "evaluations",
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("workspace", sa.String(length=64), nullable=False),
        sa.Column("optimizer", sa.String(length=64), nullable=False),
        sa.Column("family", sa.String(length=128), nullable=False),
        sa.Column("result", Json, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_evaluations_job")),
        sa.ForeignKeyConstraint(["optimizer"], ["optimizers.id"], name=op.f("fk_evaluations_optimizer")),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name=op.f("fk_evaluations_workspace")),
        sa.PrimaryKeyConstraint("job", name=op.f("pk_evaluations")),
    )
    op.create_index(op.f("ix_evaluations_optimizer"), "evaluations", ["optimizer"], unique=False)
    workspaces = sa.table("workspaces", sa.column("id", sa.String), sa.column("created_at", Moment))
    now = datetime.now(UTC)
    naive = op.get_bind().dialect.name == "sqlite"  # where times are naive UTC text
    op.bulk_insert(workspaces, [{"id": "default", "created_at": now.replace(tzinfo=None) if naive else now}])


def downgrade() -> None:
    op.drop_index(op.f("ix_evaluations_optimizer"), table_name="evaluations")
    op.drop_table("evaluations")
    op.drop_table("outbox")
    op.drop_index(op.f("ix_optimizers_workspace_family_validation_score"), table_name="optimizers")
    op.drop_table("optimizers")
    op.drop_table("job_events")
    op.drop_table("curve_chunks")
    op.drop_table("checkpoints")
    op.drop_index(op.f("ix_jobs_workspace_id"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_workspace_family_id"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_status_device_queue_key_id"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_parent_job"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_lease_expires_at"), table_name="jobs")
    op.drop_table("jobs")
    op.drop_index(op.f("ix_idempotency_keys_created_at"), table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_table("workspaces")
    op.drop_table("weights")
