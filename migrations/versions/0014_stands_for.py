"""The optimizer in whose place `best` names a learned schedule, which an evaluation registered.

Revision: 0014, after 0012.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Until now no optimizer stood for another.
    with op.batch_alter_table("optimizers") as optimizers:
        optimizers.add_column(sa.Column("stands_for", sa.String(length=64), nullable=True))
        optimizers.create_index(op.f("ix_optimizers_stands_for"), ["stands_for"])


def downgrade() -> None:
    with op.batch_alter_table("optimizers") as optimizers:
        optimizers.drop_index(op.f("ix_optimizers_stands_for"))
        optimizers.drop_column("stands_for")
