"""Whether an optimizer was selected on its family's own tasks, which `best` compares.

Revision: 0005, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Until now no job could change its family's tasks.
    with op.batch_alter_table("optimizers") as optimizers:
        optimizers.add_column(sa.Column("own_tasks", sa.Boolean(), server_default=sa.true(), nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("optimizers") as optimizers:
        optimizers.drop_column("own_tasks")
