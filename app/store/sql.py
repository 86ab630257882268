"""The little SQL that Postgres and SQLite spell differently."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, ColumnElement, Float, String, bindparam, func, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from app.store.tables import Base, UtcDateTime


class clock(FunctionElement[Any]):  # noqa: N801  (reads as the SQL function that it is)
    """The database's wall clock in milliseconds, `offset_seconds` from now.

    It moves within a transaction. Leases are set and judged by it alone: the clocks of workers and servers differ.
    """

    type = UtcDateTime()
    inherit_cache = True

    def __init__(self, offset_seconds: float = 0.0) -> None:
        super().__init__(bindparam(None, float(offset_seconds), Float()))


@compiles(clock, "postgresql")
def _clock_postgresql(element: clock, compiler: SQLCompiler, **options: Any) -> str:
    offset = compiler.process(element.clauses, **options)
    return f"date_trunc('milliseconds', clock_timestamp() + make_interval(secs => {offset}))"


@compiles(clock, "sqlite")
def _clock_sqlite(element: clock, compiler: SQLCompiler, **options: Any) -> str:
    # SQLAlchemy stores six decimals; times are compared as text, so this must have as many.
    offset = compiler.process(element.clauses, **options)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', printf('%+.3f seconds', {offset})) || '000')"


class has_label(FunctionElement[bool]):  # noqa: N801
    """Whether a flat JSON object of strings holds `key` with exactly `value`. Any key will do: none enters a path."""

    type = Boolean()
    inherit_cache = True

    def __init__(self, column: ColumnElement[Any], key: str, value: str) -> None:
        super().__init__(column, bindparam(None, key, String()), bindparam(None, value, String()))


@compiles(has_label, "postgresql")
def _has_label_postgresql(element: has_label, compiler: SQLCompiler, **options: Any) -> str:
    column, key, value = (compiler.process(clause, **options) for clause in element.clauses)
    return f"(({column} ->> {key}) = {value})"


@compiles(has_label, "sqlite")
def _has_label_sqlite(element: has_label, compiler: SQLCompiler, **options: Any) -> str:
    column, key, value = (compiler.process(clause, **options) for clause in element.clauses)
    return f"EXISTS (SELECT 1 FROM json_each({column}) AS pair WHERE pair.key = {key} AND pair.value = {value})"


class has_label_key(FunctionElement[bool]):  # noqa: N801
    """Whether a flat JSON object of strings holds `key`, with any value."""

    type = Boolean()
    inherit_cache = True

    def __init__(self, column: ColumnElement[Any], key: str) -> None:
        super().__init__(column, bindparam(None, key, String()))


@compiles(has_label_key, "postgresql")
def _has_label_key_postgresql(element: has_label_key, compiler: SQLCompiler, **options: Any) -> str:
    column, key = (compiler.process(clause, **options) for clause in element.clauses)
    return f"(({column} ->> {key}) IS NOT NULL)"  # a label is never null


@compiles(has_label_key, "sqlite")
def _has_label_key_sqlite(element: has_label_key, compiler: SQLCompiler, **options: Any) -> str:
    column, key = (compiler.process(clause, **options) for clause in element.clauses)
    return f"EXISTS (SELECT 1 FROM json_each({column}) AS pair WHERE pair.key = {key})"


def insert_if_absent(session: Session, table: type[Base], **values: Any) -> bool:
    """Insert a row unless one with its primary key exists; True when this call inserted it.

    On Postgres a twin that is inserting the same key in an open transaction is waited for.
    """
    insert = postgresql_insert if session.get_bind().dialect.name == "postgresql" else sqlite_insert
    key = list(table.__table__.primary_key)
    statement = insert(table).values(**values).on_conflict_do_nothing(index_elements=key)
    # Its own row comes back only when it was inserted; `rowcount` is -1 on Postgres.
    return session.execute(statement.returning(*key)).first() is not None


LOCK_SECONDS = 1.0
"""How long to wait for a row that another transaction has locked; our own transactions take milliseconds."""


def is_lock_timeout(error: DBAPIError) -> bool:
    """Whether a row was locked for longer than `wait_for_locks` gave."""
    return getattr(error.orig, "sqlstate", None) == "55P03"  # lock_not_available


def wait_for_locks(session: Session, seconds: float) -> None:
    """How long what follows in this transaction waits for a row that another has locked: RowLocked then; 0: for
    ever. SQLite has no locks of rows."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.set_config("lock_timeout", f"{int(1000 * seconds)}ms", True)))
