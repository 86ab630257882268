"""Alembic's entry: runs on the connection that `migrations.upgrade` and its like hand over."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from app.store.tables import Base


def run() -> None:
    connection: Connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",  # SQLite alters a table by copying it
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
