"""Optimizers that were uploaded, described and archived, and the numbers of those that were deleted.

Revision: 0016, after 0015.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Until now a job made every optimizer, and none was ever deleted.
    with op.batch_alter_table("optimizers") as optimizers:
        optimizers.alter_column("job", existing_type=sa.String(length=64), nullable=True)
        optimizers.add_column(sa.Column("description", sa.Text(), server_default=sa.text("''"), nullable=False))
        optimizers.add_column(sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True))
        optimizers.add_column(sa.Column("uploaded", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=True))
    op.create_table(
        "deleted_optimizers",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("workspace", sa.String(length=64), nullable=False),
        sa.Column("family", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name=op.f("fk_deleted_optimizers_workspace")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deleted_optimizers")),
        sa.UniqueConstraint(
            "workspace", "family", "version", name=op.f("uq_deleted_optimizers_workspace_family_version")
        ),
    )


def downgrade() -> None:
    op.drop_table("deleted_optimizers")
    uploaded = "(SELECT id FROM optimizers WHERE job IS NULL)"
    op.execute(f"DELETE FROM aliases WHERE optimizer IN {uploaded}")
    op.execute(f"DELETE FROM evaluations WHERE optimizer IN {uploaded}")
    op.execute("DELETE FROM optimizers WHERE job IS NULL")
    with op.batch_alter_table("optimizers") as optimizers:
        optimizers.drop_column("uploaded")
        optimizers.drop_column("archived_at")
        optimizers.drop_column("description")
        optimizers.alter_column("job", existing_type=sa.String(length=64), nullable=False)
