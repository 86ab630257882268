"""A rule's initial settings are the rule's: `forget_bias` moves from the recipe into its rule, wherever a recipe is.

Revision: 0003, after 0002.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Frozen here: a migration must not change when app.store.tables does.
Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_AT_ONCE = 1000
_HOLDERS = (("jobs", "spec"), ("optimizers", "card"))
"""Tables, and their columns of JSON objects, that have recipes in them."""


def upgrade() -> None:
    for table, column in _HOLDERS:
        _rewrite(table, column, _into_the_rule)


def downgrade() -> None:
    """Raises RuntimeError where a job has rules that schema 0002 cannot say."""
    for table, column in _HOLDERS:
        _rewrite(table, column, _into_the_recipe)


def _into_the_rule(document: dict[str, Any]) -> bool:
    moved = False
    for recipe in _recipes(document):
        if "forget_bias" in recipe:
            recipe["rule"]["forget_bias"] = recipe.pop("forget_bias")
            moved = True
    return moved


def _into_the_recipe(document: dict[str, Any]) -> bool:
    for recipe in _recipes(document):
        _require_one_lstm(recipe)
        recipe["forget_bias"] = recipe["rule"].pop("forget_bias")
    if "rule" in document:  # an evaluation carries the rule that it measures
        _require_one_lstm(document)
        document["rule"].pop("forget_bias", None)
    return True


def _recipes(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The recipe of a job or a card, and that of the family in it."""
    family = document.get("family")
    for holder in (document, family if isinstance(family, dict) else {}):
        if "recipe" in holder:
            yield holder["recipe"]


def _require_one_lstm(holder: dict[str, Any]) -> None:
    if holder["rule"]["kind"] != "lstm" or holder.pop("rules", {}):
        raise RuntimeError(
            "There are jobs with rules other than one LSTM, which the older version cannot read; nothing was changed. "
            "Put back the backup that was made before the upgrade instead."
        )


def _rewrite(table: str, column: str, change: Callable[[dict[str, Any]], bool]) -> None:
    """Apply `change` to every row's document; it says whether it changed anything."""
    connection = op.get_bind()
    rows = sa.table(table, sa.column("id", sa.String()), sa.column(column, Json))
    after = ""
    while True:
        query = sa.select(rows.c.id, rows.c[column]).where(rows.c.id > after).order_by(rows.c.id).limit(_AT_ONCE)
        found = connection.execute(query).all()
        if not found:
            return
        after = found[-1][0]
        changed = [{"row": name, "document": document} for name, document in found if change(document)]
        if changed:
            update = sa.update(rows).where(rows.c.id == sa.bindparam("row"))
            connection.execute(update.values({column: sa.bindparam("document", type_=Json)}), changed)
