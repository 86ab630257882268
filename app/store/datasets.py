"""Tables that a workspace brought: immutable, each under one name, their bytes in `models.datasets.blobs`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.store.errors import DatasetExists, DatasetNeeded, DatasetNotFound, StoreError, TooManyDatasets
from app.store.families import FAMILY_NAME_PATTERN
from app.store.sessions import Database, now
from app.store.sql import insert_if_absent
from app.store.tables import DEFAULT_WORKSPACE, DatasetRow, FamilyRow
from models.datasets.arrival import Arrival
from models.datasets.blobs import Blobs
from models.datasets.inspection import Column, Inspection, table
from models.errors import BlobsUnavailable
from models.table_spec import Table

log = logging.getLogger(__name__)

MOST = 1000
"""Data sets of one workspace: all of them are in one answer of GET /datasets."""


class Datasets:
    """Those of one workspace, within the caller's transaction."""

    def __init__(self, session: Session, workspace: str = DEFAULT_WORKSPACE) -> None:
        self._session = session
        self._workspace = workspace

    def rows(self) -> list[DatasetRow]:
        """All of them, by name."""
        query = select(DatasetRow).where(DatasetRow.workspace == self._workspace)
        return list(self._session.scalars(query.order_by(DatasetRow.name)))

    def get(self, name: str) -> DatasetRow:
        """Raises DatasetNotFound."""
        # what cannot be a name is never shown to the database, which may refuse it
        fits = re.fullmatch(FAMILY_NAME_PATTERN, name) is not None
        row = self._session.get(DatasetRow, (self._workspace, name)) if fits else None
        if row is None:
            raise DatasetNotFound(name)
        return row

    def names(self) -> list[str]:
        """Their names, from a to z."""
        return [row.name for row in self.rows()]

    def table(self, name: str) -> Table:
        """The data set as a family knows it. Raises DatasetNotFound, and DatasetRefused where its roles do not say what
        to learn."""
        row = self.get(name)
        return table(name, row.sha256, Inspection.model_validate(row.inspection))

    def inputs(self, name: str) -> list[Column]:
        """The columns that a model sees, as they were found. Raises DatasetNotFound."""
        found = Inspection.model_validate(self.get(name).inspection)
        return [each for each in found.columns if each.name in found.inputs]

    def add(self, name: str, sha256: str, size: int, found: Inspection) -> bool:
        """Name these bytes; False where the name has them already, in the same roles.

        Needs a write transaction. Raises DatasetExists where the name has others, and TooManyDatasets.
        """
        inspection = found.model_dump(mode="json")
        fields = {"sha256": sha256, "size": size, "inspection": inspection, "created_at": now(self._session)}
        if insert_if_absent(self._session, DatasetRow, workspace=self._workspace, name=name, **fields):
            counted = select(func.count()).select_from(DatasetRow).where(DatasetRow.workspace == self._workspace)
            if (self._session.scalar(counted) or 0) > MOST:
                raise TooManyDatasets(MOST)
            return True
        row = self._session.get_one(DatasetRow, (self._workspace, name), populate_existing=True)
        if row.sha256 != sha256 or row.inspection != inspection:
            raise DatasetExists(name)
        return False

    def hold(self, tables: Iterable[Table]) -> None:
        """Until the transaction ends, nobody removes these data sets.

        Needs a write transaction. Raises DatasetNotFound for one that was removed since its table was made.
        """
        for wanted in sorted(tables, key=lambda each: each.sha256):  # in one order, so that nobody waits in a circle
            _alone_with(self._session, wanted.sha256)
            if self.get(wanted.name).sha256 != wanted.sha256:
                raise DatasetNotFound(wanted.name)

    def remove(self, name: str) -> str:
        """Forget it. Returns the SHA-256 of its bytes, which nobody else names or removes until the transaction ends.

        Needs a write transaction. Raises DatasetNotFound, and DatasetNeeded where a family is made of it.
        """
        seen = self.get(name)
        _alone_with(self._session, seen.sha256)
        self._session.expunge(seen)
        row = self.get(name)  # as it is now that nobody else removes it
        if row.sha256 != seen.sha256:
            raise DatasetNotFound(name)
        families = select(FamilyRow).where(FamilyRow.workspace == self._workspace).order_by(FamilyRow.name)
        if needing := [each.name for each in self._session.scalars(families) if _holds(each, row)]:
            raise DatasetNeeded(name, needing)
        self._session.delete(row)
        self._session.flush()
        return row.sha256


def _holds(family: FamilyRow, row: DatasetRow) -> bool:
    return _names(family.spec.get("tasks", {}), row)


def _names(value: Any, row: DatasetRow) -> bool:
    """Whether it is the data set, or holds it somewhere within, as a mixture does."""
    if isinstance(value, dict):
        same = (value.get("name"), value.get("sha256")) == (row.name, row.sha256)
        return same or any(_names(each, row) for each in value.values())
    return isinstance(value, list) and any(_names(each, row) for each in value)


@dataclass(frozen=True)
class Kept:
    """made: whether the name is new"""

    row: DatasetRow
    made: bool


def keep(database: Database, blobs: Blobs, arrival: Arrival, found: Inspection, name: str, workspace: str) -> Kept:
    """Name what arrived and store it: both or neither. Raises as `Datasets.add` does, BlobsUnavailable and OSError."""
    sha256 = arrival.sha256
    try:
        blobs.prepare(arrival)  # which may take seconds, and nobody else waits for it
        with database.write() as session:
            _alone_with(session, sha256)
            datasets = Datasets(session, workspace)
            made = datasets.add(name, sha256, arrival.size, found)
            blobs.keep(arrival)  # again, where somebody has removed it meanwhile
            row = datasets.get(name)
    except BaseException:
        _remove_unnamed(database, blobs, sha256)
        raise
    return Kept(row, made)


def forget(database: Database, blobs: Blobs, name: str, workspace: str) -> None:
    """Remove the name, and the bytes where no other name has them: both or neither. Raises as `Datasets.remove` does,
    and BlobsUnavailable."""
    with database.write() as session:
        sha256 = Datasets(session, workspace).remove(name)
        if not _named(session, sha256):
            blobs.remove(sha256)


def by_content(session: Session) -> dict[str, DatasetRow]:
    """A data set of each stored file, by its SHA-256, of all workspaces."""
    return {row.sha256: row for row in session.scalars(select(DatasetRow))}


def _remove_unnamed(database: Database, blobs: Blobs, sha256: str) -> None:
    """Remove what a failed `keep` may have stored. Where that cannot be done, doctor finds it."""
    try:
        with database.write() as session:
            _alone_with(session, sha256)
            if not _named(session, sha256):
                blobs.remove(sha256)
    except (BlobsUnavailable, StoreError, OSError) as error:
        log.warning("the file %s of a data set that was not kept may be left in %s: %s", sha256, blobs.place, error)


def _named(session: Session, sha256: str) -> bool:
    return session.scalar(select(DatasetRow.name).where(DatasetRow.sha256 == sha256).limit(1)) is not None


def _alone_with(session: Session, sha256: str) -> None:
    """Until the transaction ends, nobody else names or removes these bytes. On SQLite there is one writer anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(int(sha256[:15], 16))))
