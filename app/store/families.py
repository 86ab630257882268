"""Families that a workspace declared: immutable, each under one name."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.store.errors import FamilyExists, TooManyFamilies
from app.store.sessions import now
from app.store.sql import insert_if_absent
from app.store.tables import DEFAULT_WORKSPACE, FamilyRow
from models.spec import FamilySpec

FAMILY_NAME_PATTERN = r"^[a-z][a-z0-9_-]{0,63}$"
MOST = 1000
"""Families of one workspace: all of them are in one answer of GET /families."""


class DeclaredFamilies:
    """Those of one workspace, within the caller's transaction."""

    def __init__(self, session: Session, workspace: str = DEFAULT_WORKSPACE) -> None:
        self._session = session
        self._workspace = workspace

    def find(self, name: str) -> FamilySpec | None:
        """The family of that name. Raises pydantic.ValidationError where another version of Gradsmith declared it, and
        this one does not know its fields."""
        row = self._session.get(FamilyRow, (self._workspace, name))
        return None if row is None else FamilySpec.model_validate(row.spec)

    def rows(self) -> list[FamilyRow]:
        """All of them, by name. A row's spec may be one that this version cannot read."""
        query = select(FamilyRow).where(FamilyRow.workspace == self._workspace)
        return list(self._session.scalars(query.order_by(FamilyRow.name)))

    def names(self) -> list[str]:
        """Their names, from a to z."""
        query = select(FamilyRow.name).where(FamilyRow.workspace == self._workspace)
        return list(self._session.scalars(query.order_by(FamilyRow.name)))

    def add(self, family: FamilySpec) -> bool:
        """Declare it; False where this very family is declared already.

        Needs a write transaction. Raises FamilyExists where the name has another family, and TooManyFamilies.
        """
        spec = family.model_dump(mode="json")
        fields = {"spec": spec, "sha256": _digest(spec), "created_at": now(self._session)}
        if insert_if_absent(self._session, FamilyRow, workspace=self._workspace, name=family.name, **fields):
            counted = select(func.count()).select_from(FamilyRow).where(FamilyRow.workspace == self._workspace)
            if (self._session.scalar(counted) or 0) > MOST:
                raise TooManyFamilies(MOST)
            return True
        row = self._session.get_one(FamilyRow, (self._workspace, family.name), populate_existing=True)
        if row.sha256 != fields["sha256"]:
            raise FamilyExists(family.name)
        return False


def _digest(spec: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
