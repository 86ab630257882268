"""API keys, users' own aliases, and each key's share of the workers.

Revision: 0002, after 0001.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Frozen here: a migration must not change when app.store.tables does.
Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    # Random digits: trying to compress them is a third of the time of writing a chunk, and gains little.
    _store_curves("EXTERNAL")
    op.create_table(
        "keys",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("workspace", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("scopes", Json, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("max_active_jobs", sa.Integer(), nullable=True),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("expires_at", Moment, nullable=True),
        sa.Column("revoked_at", Moment, nullable=True),
        sa.Column("last_used_at", Moment, nullable=True),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name=op.f("fk_keys_workspace")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
    )
    op.create_index(op.f("ix_keys_workspace_id"), "keys", ["workspace", "id"], unique=False)
    op.create_table(
        "aliases",
        sa.Column("workspace", sa.String(length=64), nullable=False),
        sa.Column("family", sa.String(length=128), nullable=False),
        sa.Column("alias", sa.String(length=64), nullable=False),
        sa.Column("optimizer", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("updated_at", Moment, nullable=False),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name=op.f("fk_aliases_workspace")),
        sa.ForeignKeyConstraint(["optimizer"], ["optimizers.id"], name=op.f("fk_aliases_optimizer")),
        sa.PrimaryKeyConstraint("workspace", "family", "alias", name=op.f("pk_aliases")),
    )
    op.create_index(op.f("ix_aliases_optimizer"), "aliases", ["optimizer"], unique=False)
    op.create_table(
        "shares",
        sa.Column("api_key", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=8), nullable=False),
        sa.Column("served", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("api_key", "device", name=op.f("pk_shares")),
    )
    op.create_table(
        "curve_overviews",
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("first_sequence", sa.BigInteger(), nullable=False),
        sa.Column("columns", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_curve_overviews_job"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job", "attempt", "first_sequence", name=op.f("pk_curve_overviews")),
    )
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_index(op.f("ix_jobs_status_device_queue_key_id"))  # the one below serves each key's line
        jobs.add_column(sa.Column("api_key", sa.String(length=64), nullable=True))
        jobs.create_foreign_key(op.f("fk_jobs_api_key"), "keys", ["api_key"], ["id"])
        jobs.create_index(
            op.f("ix_jobs_status_device_api_key_queue_key_id"),
            ["status", "device", "api_key", "queue_key", "id"],
            unique=False,
        )
        jobs.create_index(
            op.f("ix_jobs_lost_workers"),
            ["lost_workers"],
            unique=False,
            postgresql_where=sa.text("lost_workers > 0"),
            sqlite_where=sa.text("lost_workers > 0"),
        )
    # The key of whoever asked is part of the name now. Answers are kept: a client may be about to send its POST again.
    kept = _answers()
    op.drop_table("idempotency_keys")
    op.bulk_insert(_create_idempotency_keys(with_api_key=True), [{**answer, "api_key": ""} for answer in kept])


def downgrade() -> None:
    _store_curves("EXTENDED")
    kept = _answers("WHERE api_key = ''")
    op.drop_table("idempotency_keys")
    op.bulk_insert(_create_idempotency_keys(with_api_key=False), kept)
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_index(op.f("ix_jobs_lost_workers"))
        jobs.drop_index(op.f("ix_jobs_status_device_api_key_queue_key_id"))
        jobs.drop_constraint(op.f("fk_jobs_api_key"), type_="foreignkey")
        jobs.drop_column("api_key")
        jobs.create_index(
            op.f("ix_jobs_status_device_queue_key_id"), ["status", "device", "queue_key", "id"], unique=False
        )
    op.drop_table("curve_overviews")
    op.drop_table("shares")
    op.drop_index(op.f("ix_aliases_optimizer"), table_name="aliases")
    op.drop_table("aliases")
    op.drop_index(op.f("ix_keys_workspace_id"), table_name="keys")
    op.drop_table("keys")


def _answers(where: str = "") -> list[dict[str, Any]]:
    """The rows of idempotency_keys as Python values, without the key of whoever asked."""
    columns: dict[str, sa.types.TypeEngine[Any]] = {
        "workspace": sa.String(),
        "key": sa.String(),
        "fingerprint": sa.String(),
        "status_code": sa.Integer(),
        "headers": Json,
        "body": sa.LargeBinary(),
        "created_at": Moment,
    }
    query = sa.text(f"SELECT {', '.join(columns)} FROM idempotency_keys {where}").columns(**columns)
    return [dict(row) for row in op.get_bind().execute(query).mappings()]


def _create_idempotency_keys(*, with_api_key: bool) -> sa.Table:
    caller = [sa.Column("api_key", sa.String(length=64), nullable=False)] if with_api_key else []
    made = op.create_table(
        "idempotency_keys",
        sa.Column("workspace", sa.String(length=64), nullable=False),
        *caller,
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=False),
        sa.Column("headers", Json, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name=op.f("fk_idempotency_keys_workspace")),
        sa.PrimaryKeyConstraint(
            "workspace", *(column.name for column in caller), "key", name=op.f("pk_idempotency_keys")
        ),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"], unique=False)
    return made


def _store_curves(storage: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE curve_chunks ALTER COLUMN columns SET STORAGE {storage}")
