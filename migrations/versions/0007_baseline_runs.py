"""Runs of baselines are kept, so that the next evaluation of the family need not compute them.

Revision: 0007, after 0006.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "baseline_runs",
        sa.Column("workspace", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("baseline", sa.String(length=64), nullable=False),
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_baseline_runs_job")),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name=op.f("fk_baseline_runs_workspace")),
        sa.PrimaryKeyConstraint("workspace", "key", name=op.f("pk_baseline_runs")),
    )
    op.create_index(op.f("ix_baseline_runs_created_at"), "baseline_runs", ["created_at"], unique=False)


def downgrade() -> None:
    op.drop_table("baseline_runs")
