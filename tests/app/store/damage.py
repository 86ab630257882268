"""Damage to stored bytes, as a disk or a stray tool does it: one bit, below everything that would notice."""

from __future__ import annotations

from sqlalchemy import text

from app.store.sessions import Database


def flip_a_bit(database: Database, table: str, column: str, place: float = 0.5) -> None:
    """Change one bit of that column in every row, at `place` (0 to 1) of its bytes."""
    key = "ctid" if not database.is_sqlite else "rowid"
    with database.write() as session:
        rows = session.execute(text(f"SELECT CAST({key} AS TEXT), {column} FROM {table}")).all()
        for row, content in rows:
            damaged = bytearray(content)
            damaged[int(place * len(damaged))] ^= 1
            session.execute(
                text(f"UPDATE {table} SET {column} = :content WHERE CAST({key} AS TEXT) = :row"),
                {"content": bytes(damaged), "row": row},
            )
