"""Sweeps: whose child a training is, which of its trials, and with which values.

Revision: 0017, after 0016.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    json = sa.JSON().with_variant(JSONB(), "postgresql")
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("sweep", sa.String(length=64), nullable=True))
        jobs.add_column(sa.Column("trial", sa.Integer(), nullable=True))
        jobs.add_column(sa.Column("rung", sa.Integer(), nullable=True))
        jobs.add_column(sa.Column("swept", json, nullable=False, server_default=sa.text("'{}'")))
        jobs.create_index(op.f("ix_jobs_sweep_trial"), ["sweep", "trial"], unique=True)


def downgrade() -> None:
    # Older versions know no sweep. Its children are ordinary trainings, and stay; events and evaluations go with it.
    sweeps = "SELECT id FROM jobs WHERE kind = 'sweep'"
    op.execute(f"UPDATE jobs SET parent_job = NULL WHERE parent_job IN ({sweeps})")
    op.execute(f"DELETE FROM job_events WHERE job IN ({sweeps})")
    op.execute("DELETE FROM jobs WHERE kind = 'sweep'")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_index(op.f("ix_jobs_sweep_trial"))
        for column in ("swept", "rung", "trial", "sweep"):
            jobs.drop_column(column)
