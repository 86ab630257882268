"""What an optimizer's validation score is of. `best` compares scores of one criterion.

Revision: 0008, after 0007.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("optimizers") as optimizers:
        optimizers.add_column(sa.Column("criterion", sa.String(128), server_default=sa.text("''"), nullable=False))
    # Until now a score was the mean loss over the horizon that a job trained for.
    connection = op.get_bind()
    made = connection.execute(sa.text("SELECT o.id, j.spec FROM optimizers o JOIN jobs j ON j.id = o.job"))
    found = []
    for optimizer, stored in made:
        spec = json.loads(stored) if isinstance(stored, str) else stored
        recipe = spec["recipe"]
        criterion = f"area of {recipe['validation_tasks']} tasks after {recipe['horizon']} steps"
        found.append({"id": optimizer, "criterion": criterion})
    if found:
        connection.execute(sa.text("UPDATE optimizers SET criterion = :criterion WHERE id = :id"), found)


def downgrade() -> None:
    with op.batch_alter_table("optimizers") as optimizers:
        optimizers.drop_column("criterion")
