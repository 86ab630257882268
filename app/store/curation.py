"""What users do with optimizers once they are there: describe them, put them away, delete them."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.store.aliases import Aliases
from app.store.errors import OptimizerNeeded
from app.store.records import unfinished_evaluations
from app.store.registry import Registry
from app.store.sessions import now
from app.store.tables import DEFAULT_WORKSPACE, DeletedOptimizerRow, EvaluationRow, OptimizerRow, WeightsRow


class Curation:
    """Changes of the optimizers of one workspace, within the caller's write transaction."""

    def __init__(self, session: Session, workspace: str = DEFAULT_WORKSPACE) -> None:
        self._session = session
        self._workspace = workspace
        self._registry = Registry(session, workspace)

    def change(self, reference: str, *, description: str | None = None, archived: bool | None = None) -> OptimizerRow:
        """What is None stays as it is. Raises OptimizerNotFound."""
        row = self._locked(reference)
        if description is not None:
            row.description = description
        if archived is not None and archived != (row.archived_at is not None):
            row.archived_at = now(self._session) if archived else None
        self._session.flush()
        return row

    def delete(self, reference: str) -> None:
        """Forget it, and its weights where no other optimizer has them. Its version is never given again.

        Raises OptimizerNotFound, and OptimizerNeeded where an alias, a job, an evaluation or a schedule needs it.
        """
        row = self._locked(reference)
        name = f"{row.family}@{row.version}"
        if needing := self._needing(row):
            raise OptimizerNeeded(name, needing)
        gone = {"id": row.id, "workspace": row.workspace, "family": row.family, "version": row.version}
        sha256 = row.sha256
        try:
            with self._session.begin_nested():
                self._session.delete(row)
        except IntegrityError as error:  # an alias or an evaluation came meanwhile
            raise OptimizerNeeded(name, ["what was made at this moment"]) from error
        self._session.add(DeletedOptimizerRow(**gone, deleted_at=now(self._session)))
        if self._session.scalar(select(OptimizerRow.id).where(OptimizerRow.sha256 == sha256).limit(1)) is None:
            self._remove_weights(sha256)

    def _remove_weights(self, sha256: str) -> None:
        weights = self._session.get(WeightsRow, sha256, with_for_update=True)
        assert weights is not None, "a foreign key held the weights"
        try:
            with self._session.begin_nested():
                self._session.delete(weights)
        except IntegrityError:  # somebody registered the same bytes meanwhile, and needs them
            pass

    def _locked(self, reference: str) -> OptimizerRow:
        found = self._registry.locate(reference)
        return self._session.get_one(OptimizerRow, found.id, with_for_update=True, populate_existing=True)

    def _needing(self, row: OptimizerRow) -> list[str]:
        aliases = Aliases(self._session, self._workspace).names_of([row.id]).get(row.id, [])
        running = [f"the {status} job {job}" for job, status in unfinished_evaluations(self._session, row)]
        evaluations = select(EvaluationRow.job).where(EvaluationRow.optimizer == row.id).order_by(EvaluationRow.job)
        standing = select(OptimizerRow.version).where(
            OptimizerRow.workspace == self._workspace, OptimizerRow.stands_for == row.id
        )
        schedules = [f"{row.family}@{version}" for version in self._session.scalars(standing)]
        return [
            *(f"the alias {row.family}@{alias}" for alias in aliases),
            *running,
            *(f"the evaluation {job}" for job in self._session.scalars(evaluations)),
            *(f"the schedule {schedule}, which stands for it" for schedule in schedules),
        ]
