"""Whether `latest` and `best` may name an optimizer.

Revision: 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Nobody noted of older optimizers whether they beat standing still; they keep the names that they have.
    with op.batch_alter_table("optimizers") as optimizers:
        optimizers.add_column(sa.Column("automatic", sa.Boolean(), server_default=sa.true(), nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("optimizers") as optimizers:
        optimizers.drop_column("automatic")
