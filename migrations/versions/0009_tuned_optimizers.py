"""Whether an optimizer is a tuned baseline, which an evaluation registered.

Revision: 0009, after 0008.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Until now every optimizer was trained.
    with op.batch_alter_table("optimizers") as optimizers:
        optimizers.add_column(sa.Column("tuned", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("optimizers") as optimizers:
        optimizers.drop_column("tuned")
