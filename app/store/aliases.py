"""Users' own aliases: names that they move between the optimizers of a family.

A move is a compare-and-set. Whoever moves an alias says which state of it was seen (its tag); of several who saw the
same state, one wins and the others are told where it went.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store.errors import AliasMoved, AliasNotFound, AliasReserved
from app.store.pages import Page, page_of
from app.store.sessions import now
from app.store.sql import insert_if_absent
from app.store.tables import DEFAULT_WORKSPACE, AliasRow, OptimizerRow

RESERVED = {
    "best": "names the lowest validation score of its family",
    "latest": "names the newest version of its family",
}
"""Aliases that move by themselves, and what each does. Neither names an optimizer that is worse than standing still."""
ALIAS_PATTERN = r"^[a-z][a-z0-9_.-]{0,63}$"  # never a version: those begin with a digit


def is_alias(text: str) -> bool:
    """Whether `text` has the form of an alias; `latest` and `best` have it too."""
    return re.fullmatch(ALIAS_PATTERN[1:-1], text) is not None


@dataclass(frozen=True)
class Expected:
    """What the caller believes of an alias: it must be absent, or present with one of `tags` (None: with any)."""

    absent: bool = False
    present: bool = False
    tags: frozenset[str] | None = None

    def holds(self, tag: str | None) -> bool:
        """`tag`: that of the alias as it is; None where there is none."""
        if self.absent and tag is not None:
            return False
        return not self.present or (tag is not None and (self.tags is None or tag in self.tags))


def tag_of(row: AliasRow) -> str:
    """The state of an alias in a word: another one after every move, also when it was deleted and made anew."""
    state = f"{row.created_at.isoformat()} {row.optimizer}"
    return f"{row.revision}-{hashlib.sha256(state.encode()).hexdigest()[:16]}"


class Aliases:
    """The aliases of one workspace, within the caller's transaction."""

    def __init__(self, session: Session, workspace: str = DEFAULT_WORKSPACE) -> None:
        self._session = session
        self._workspace = workspace

    def get(self, family: str, alias: str) -> AliasRow:
        """Raises AliasNotFound; also for `latest` and `best`, which are no rows."""
        row = self._find(family, alias)
        if row is None:
            raise AliasNotFound(family, alias, RESERVED.get(alias))
        return row

    def page(self, family: str, limit: int = 20, after: str | None = None) -> Page[AliasRow]:
        """A page of the family's aliases, by name from a to z."""
        query = select(AliasRow).where(AliasRow.workspace == self._workspace, AliasRow.family == family)
        listing = ["aliases", self._workspace, family]
        return page_of(self._session, query, AliasRow.alias, limit, after, listing, rising=True)

    def move(self, family: str, alias: str, optimizer: OptimizerRow, expected: Expected) -> tuple[AliasRow, bool]:
        """Let the alias name `optimizer`, an optimizer of that family; and whether that made the alias.

        Needs a write transaction. Raises AliasReserved, and AliasMoved when it is not as `expected`.
        """
        self._refuse_reserved(alias)
        assert (optimizer.workspace, optimizer.family) == (self._workspace, family)
        moment = now(self._session)
        if not expected.present:
            # The insertion decides, not a look before it: of two who insert at once, the second waits for the first.
            named = {"workspace": self._workspace, "family": family, "alias": alias}
            state = {"optimizer": optimizer.id, "revision": 1, "created_at": moment, "updated_at": moment}
            if insert_if_absent(self._session, AliasRow, **named, **state):
                return self.get(family, alias), True
        row = self._find(family, alias, lock=True)
        if row is None or not expected.holds(tag_of(row)):
            raise self._moved(family, alias, row)
        row.optimizer, row.revision, row.updated_at = optimizer.id, row.revision + 1, moment
        self._session.flush()
        return row, False

    def delete(self, family: str, alias: str, expected: Expected) -> None:
        """Needs a write transaction. Raises AliasReserved, AliasNotFound, and AliasMoved when it is not as
        `expected`."""
        self._refuse_reserved(alias)
        row = self._find(family, alias, lock=True)
        if row is None:
            raise AliasNotFound(family, alias)
        if not expected.holds(tag_of(row)):
            raise self._moved(family, alias, row)
        self._session.delete(row)
        self._session.flush()

    def names_of(self, optimizers: Iterable[str]) -> dict[str, list[str]]:
        """The aliases of each of these optimizers (ids), by name."""
        names: dict[str, list[str]] = {}
        for optimizer, alias in self._session.execute(
            select(AliasRow.optimizer, AliasRow.alias)
            .where(AliasRow.workspace == self._workspace, AliasRow.optimizer.in_(list(optimizers)))
            .order_by(AliasRow.alias)
        ):
            names.setdefault(optimizer, []).append(alias)
        return names

    def _find(self, family: str, alias: str, *, lock: bool = False) -> AliasRow | None:
        query = select(AliasRow).where(
            AliasRow.workspace == self._workspace, AliasRow.family == family, AliasRow.alias == alias
        )
        if lock:
            query = query.with_for_update().execution_options(populate_existing=True)
        return self._session.scalar(query)

    def _moved(self, family: str, alias: str, row: AliasRow | None) -> AliasMoved:
        if row is None:
            return AliasMoved(family, alias, None, None)
        return AliasMoved(family, alias, row.optimizer, tag_of(row))

    @staticmethod
    def _refuse_reserved(alias: str) -> None:
        if alias in RESERVED:
            raise AliasReserved(alias, RESERVED[alias])
