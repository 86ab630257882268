"""Postgres as one would run it: durable, with room to cache, a database for each server that is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import make_url

from workshop.services import NoServer, PostgresServer, start_postgres

DURABLE = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "256MB",
    "autovacuum": "on",
    "autovacuum_naptime": "10s",
    "max_connections": "200",
}


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Raises NoServer when this machine has none."""
    server = start_postgres(DURABLE)
    try:
        yield Postgres(server)
    finally:
        server.stop()


class Postgres:
    def __init__(self, server: PostgresServer) -> None:
        self._url = make_url(server.url)
        self._connect = f"host={server.folder} user=postgres dbname=postgres"
        with psycopg.connect(self._connect) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        self.version = row[0] if row else "not told"

    def url(self, name: str, driver: str = "psycopg") -> str:
        """The URL of a new, empty database."""
        with psycopg.connect(self._connect, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        url = self._url.set(database=name, drivername=f"postgresql+{driver}" if driver else "postgresql")
        return url.render_as_string(hide_password=False)


__all__ = ["NoServer", "Postgres", "postgres"]
