"""Databases that older versions left, kept as SQL of SQLite."""

from __future__ import annotations

import gzip
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Boolean, DateTime, LargeBinary, MetaData, Table, create_engine, insert, text


def script(name: str) -> str:
    """The SQL of a file beside this one."""
    return gzip.decompress((Path(__file__).parent / name).read_bytes()).decode()


def restore(sql: str, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)


def copy_rows(path: Path, url: str) -> None:
    """The rows of the SQLite file into the same tables of Postgres."""
    engine = create_engine(url)
    found = MetaData()
    found.reflect(engine)
    with closing(sqlite3.connect(path)) as source, engine.begin() as target:
        source.row_factory = sqlite3.Row
        target.execute(text("DELETE FROM workspaces"))
        for table in found.sorted_tables:
            if table.name == "alembic_version":
                continue
            query = f"SELECT * FROM {table.name}"
            rows = [_converted(table, dict(row)) for row in source.execute(query)]
            for row in sorted(rows, key=lambda row: row.get("parent_job") is not None):
                target.execute(insert(table), row)
    engine.dispose()


def _converted(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    def value(name: str, found: Any) -> Any:
        kind = table.c[name].type
        if found is None or isinstance(kind, LargeBinary):
            return found
        if isinstance(kind, JSON):
            return json.loads(found)
        if isinstance(kind, DateTime):
            return datetime.fromisoformat(found).replace(tzinfo=UTC)
        return bool(found) if isinstance(kind, Boolean) else found

    return {name: value(name, found) for name, found in row.items()}
