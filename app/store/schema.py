"""What a database lacks of the tables that this code needs.

The revision that Alembic noted says what was once made; a table that was dropped since, or a dump that was put back in
part, shows only in the tables themselves.
"""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy import bindparam, text
from sqlalchemy.orm import Session

from app.store.tables import Base

# One statement on each: SQLAlchemy's inspector asks SQLite for each table, and Postgres for much that is not compared.
_COLUMNS = {
    "sqlite": text(
        "SELECT found.name, part.name FROM sqlite_master AS found JOIN pragma_table_info(found.name) AS part "
        "WHERE found.type = 'table' AND found.name IN :tables"
    ),
    "postgresql": text(
        "SELECT found.relname, part.attname FROM pg_class AS found JOIN pg_attribute AS part "
        "ON part.attrelid = found.oid WHERE found.relkind IN ('r', 'p') AND pg_table_is_visible(found.oid) "
        "AND part.attnum > 0 AND NOT part.attisdropped AND found.relname IN :tables"
    ),
}


def lacking(session: Session) -> str:
    """`the tables jobs and keys, the column aliases.revision`; empty when everything is there.

    Tables and columns by name; their types and indexes are not compared."""
    needed = {table.name: {column.name for column in table.columns} for table in Base.metadata.sorted_tables}
    statement = _COLUMNS[session.get_bind().dialect.name].bindparams(bindparam("tables", list(needed), expanding=True))
    found: dict[str, set[str]] = defaultdict(set)
    for table, column in session.execute(statement):
        found[table].add(column)
    tables = [name for name in needed if name not in found]
    columns = [f"{name}.{column}" for name in needed if name in found for column in sorted(needed[name] - found[name])]
    return ", ".join(_named(kind, names) for kind, names in (("table", tables), ("column", columns)) if names)


def _named(kind: str, names: list[str]) -> str:
    if len(names) == 1:
        return f"the {kind} {names[0]}"
    return f"the {kind}s {', '.join(names[:-1])} and {names[-1]}"
