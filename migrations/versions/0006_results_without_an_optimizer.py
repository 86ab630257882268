"""What a job measured may name no optimizer: previews measure baselines alone.

Revision: 0006, after 0005.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("evaluations") as evaluations:
        evaluations.alter_column("optimizer", existing_type=sa.String(64), nullable=True)


def downgrade() -> None:
    op.execute("DELETE FROM evaluations WHERE optimizer IS NULL")
    with op.batch_alter_table("evaluations") as evaluations:
        evaluations.alter_column("optimizer", existing_type=sa.String(64), nullable=False)
