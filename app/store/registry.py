"""The registry: versioned optimizers under their names, their weights by content, and their evaluations."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from app.store.errors import DamagedWeights, EvaluationNotFound
from app.store.ids import new_id
from app.store.pages import Page, page_of
from app.store.provenance import made_with
from app.store.references import Located, compared_criterion, locate, nameable
from app.store.sql import clock, has_label, has_label_key, insert_if_absent
from app.store.tables import (
    DEFAULT_WORKSPACE,
    AliasRow,
    DeletedOptimizerRow,
    EvaluationRow,
    JobRow,
    OptimizerRow,
    WeightsRow,
    WorkspaceRow,
)

logger = logging.getLogger(__name__)

_WEIGHTS = select(WeightsRow.__table__.c.content).where(WeightsRow.__table__.c.sha256 == bindparam("sha256"))
_WEIGHTS = _WEIGHTS.execution_options(binary_results=True)


@dataclass(frozen=True)
class Anatomy:
    """What an evaluation saw of an optimizer's updates. overrides: what its job changed of the family's tasks"""

    job: str
    family: str
    overrides: dict[str, Any]
    seed: int
    content: dict[str, Any]


class Registry:
    """The optimizers of one workspace, within the caller's transaction."""

    def __init__(self, session: Session, workspace: str = DEFAULT_WORKSPACE) -> None:
        self._session = session
        self._workspace = workspace

    def resolve(self, reference: str) -> OptimizerRow:
        """The optimizer that a reference names. Raises OptimizerNotFound, which lists what there is."""
        return self._session.get_one(OptimizerRow, self.locate(reference).id)

    def locate(self, reference: str) -> Located:
        """Like `resolve`, for callers that need only its place: downloads, thousands per second."""
        return locate(self._session, self._workspace, reference)

    def page(
        self,
        *,
        family: str | None = None,
        alias: str | None = None,
        tags: Sequence[tuple[str, str | None]] = (),
        archived: bool = False,
        limit: int = 20,
        after: str | None = None,
    ) -> Page[OptimizerRow]:
        """Newest first. `alias`: those that it names now, in whatever family. `tags`: labels of the job that made
        the optimizer, as (key, value), all of which must be there; None stands for any value. `archived`: also
        those that were archived."""
        query = self._all()
        if not archived:
            query = query.where(OptimizerRow.archived_at.is_(None))
        if family is not None:
            query = query.where(OptimizerRow.family == family)
        if alias is not None:
            query = query.where(self._named(alias))
        if tags:
            query = query.join(JobRow, JobRow.id == OptimizerRow.job)
            for key, value in tags:
                labels = JobRow.__table__.c.labels
                query = query.where(has_label_key(labels, key) if value is None else has_label(labels, key, value))
        listing = ["optimizers", self._workspace, family, alias, [list(tag) for tag in tags], archived]
        return page_of(self._session, query, OptimizerRow.id, limit, after, listing)

    def _all(self) -> Select[OptimizerRow]:
        return select(OptimizerRow).where(OptimizerRow.workspace == self._workspace)

    def _named(self, alias: str) -> ColumnElement[bool]:
        """Whether `alias` names an optimizer now."""
        other = aliased(OptimizerRow)
        within = (other.workspace == self._workspace, other.family == OptimizerRow.family, *nameable(other))
        if alias == "latest":
            newest = (
                select(func.max(other.version))
                .where(*within, ~other.tuned, other.stands_for.is_(None))
                .correlate(OptimizerRow)
            )
            return OptimizerRow.version == newest.scalar_subquery()
        if alias == "best":
            another = aliased(OptimizerRow)
            compared_by = compared_criterion(another, OptimizerRow.workspace, OptimizerRow.family)
            criterion = compared_by.correlate(OptimizerRow).scalar_subquery()
            compared = (*within, other.own_tasks, other.validation_score.is_not(None), other.criterion == criterion)
            lowest = select(other.id).where(*compared).correlate(OptimizerRow)
            lowest = lowest.order_by(other.validation_score, other.version).limit(1)
            standin = aliased(OptimizerRow)
            standing = (standin.stands_for == lowest.scalar_subquery(), *nameable(standin))
            best = select(standin.id).where(*standing).order_by(standin.validation_score, standin.version).limit(1)
            chosen = func.coalesce(best.scalar_subquery(), lowest.scalar_subquery())
            return OptimizerRow.id == chosen
        named = select(AliasRow.optimizer).where(AliasRow.workspace == self._workspace, AliasRow.alias == alias)
        return OptimizerRow.id.in_(named)

    def several(self, ids: Sequence[str]) -> dict[str, OptimizerRow]:
        """Those of these ids that there are, by id."""
        return {row.id: row for row in self._session.scalars(self._all().where(OptimizerRow.id.in_(ids)))}

    def made_with(self, optimizer: OptimizerRow) -> dict[str, Any]:
        """Its family, recipe and seed, as they are stored."""
        return made_with(self._session, optimizer)

    def of_job(self, job_id: str) -> OptimizerRow | None:
        return self._session.scalar(
            select(OptimizerRow).where(OptimizerRow.workspace == self._workspace, OptimizerRow.job == job_id)
        )

    def weights(self, optimizer: OptimizerRow | Located) -> bytes:
        """The safetensors bytes, whose SHA-256 is `optimizer.sha256`. Raises DamagedWeights when it is not."""
        content: bytes | None = self._session.scalar(_WEIGHTS, {"sha256": optimizer.sha256})
        assert content is not None, "a foreign key holds the weights"
        found = hashlib.sha256(content).hexdigest()
        if found != optimizer.sha256:
            raise DamagedWeights(optimizer.id, f"{optimizer.family}@{optimizer.version}", optimizer.sha256, found)
        return content

    def _keep(self, sha256: str, weights: bytes) -> None:
        """Store the bytes unless they are there. Other bytes under their hash are damaged: these replace them."""
        if insert_if_absent(self._session, WeightsRow, sha256=sha256, size=len(weights), content=weights):
            return
        differs = (WeightsRow.sha256 == sha256) & (WeightsRow.content != weights)
        mended = self._session.execute(update(WeightsRow).where(differs).values(content=weights, size=len(weights)))
        if mended.rowcount:  # type: ignore[attr-defined]  # an UPDATE's result has it
            logger.warning("the stored weights %s were damaged, and are replaced by the same job's bytes", sha256)

    def evaluations(self, optimizer_id: str) -> list[EvaluationRow]:
        """Newest first."""
        return list(
            self._session.scalars(
                select(EvaluationRow)
                .where(EvaluationRow.workspace == self._workspace, EvaluationRow.optimizer == optimizer_id)
                .order_by(EvaluationRow.job.desc())
            )
        )

    def anatomy(self, optimizer: OptimizerRow) -> Anatomy | None:
        """That of its newest evaluation on its family's own tasks, else of its newest; None where none has one."""
        result = EvaluationRow.result
        query = (
            select(EvaluationRow.job, EvaluationRow.family, result["overrides"], result["seed"], result["anatomy"])
            .where(EvaluationRow.workspace == self._workspace, EvaluationRow.optimizer == optimizer.id)
            .order_by(EvaluationRow.job.desc())
        )
        found = [
            Anatomy(job, family, overrides or {}, seed, content)
            for job, family, overrides, seed, content in self._session.execute(query)
            if content  # evaluations of older versions have none
        ]
        own = [each for each in found if each.family == optimizer.family and not each.overrides]
        return next(iter(own or found), None)

    def evaluation(self, job_id: str) -> EvaluationRow:
        """The result of a job that measures. Raises EvaluationNotFound while there is none."""
        row = self._session.scalar(
            select(EvaluationRow).where(EvaluationRow.workspace == self._workspace, EvaluationRow.job == job_id)
        )
        if row is None:
            raise EvaluationNotFound(f"Job {job_id} has no evaluation.")
        return row

    def next_version(self, family: str) -> int:
        """The number that the family's next optimizer will get, unless somebody is quicker."""
        newest = (
            select(func.max(each.version)).where(each.workspace == self._workspace, each.family == family)
            for each in (OptimizerRow, DeletedOptimizerRow)
        )
        return 1 + max(self._session.scalar(query) or 0 for query in newest)

    def register(
        self,
        job: JobRow,
        weights: bytes,
        validation_score: float | None,
        card: dict[str, Any],
        *,
        automatic: bool = True,
        criterion: str = "",
        tuned: bool = False,
        stands_for: str | None = None,
    ) -> OptimizerRow:
        """Register what a job made as the next version of its family. Needs the transaction that ends the job, whose
        row is locked: `outcomes.finish_training` does both.

        automatic: whether `latest` and `best` may name it
        criterion: what its validation score is of (`Recipe.criterion`)
        tuned: whether it is a tuned baseline
        stands_for: for a schedule that an evaluation made, the optimizer in whose place `best` names it
            What an evaluation made is there once a criterion: a second registration returns the first
        """
        sha256 = hashlib.sha256(weights).hexdigest()
        self._keep(sha256, weights)
        self._alone()
        own_tasks = not job.spec["family"].get("overrides")
        if tuned or stands_for is not None:
            there = self._measured(job.family, sha256, criterion, own_tasks, stands_for)
            if there is not None:
                return there
        finite = validation_score is not None and math.isfinite(validation_score)
        return self._numbered(
            job.family,
            job=job.id,
            sha256=sha256,
            validation_score=validation_score if finite else None,
            automatic=automatic,
            own_tasks=own_tasks,
            criterion=criterion,
            tuned=tuned,
            stands_for=stands_for,
            card=card,
        )

    def upload(
        self, family: str, weights: bytes, card: dict[str, Any], uploaded: dict[str, Any], *, description: str = ""
    ) -> tuple[OptimizerRow, bool]:
        """Register what was made elsewhere; and whether it is new here. The same file in the same family is uploaded
        once. Needs a write transaction.

        `latest` and `best` may not name it before it was evaluated here: `outcomes.finish_with_result` gives it a score
        uploaded: by whom and from what, and what it was `made_with`
        """
        sha256 = hashlib.sha256(weights).hexdigest()
        self._keep(sha256, weights)
        self._alone()
        same = self._all().where(OptimizerRow.family == family, OptimizerRow.sha256 == sha256)
        for there in self._session.scalars(same.where(OptimizerRow.job.is_(None))):
            if there.uploaded is not None and there.uploaded["made_with"] == uploaded["made_with"]:
                return there, False
        row = self._numbered(
            family,
            sha256=sha256,
            automatic=False,
            own_tasks=not uploaded["made_with"]["family"]["overrides"],
            card=card,
            uploaded=uploaded,
            description=description,
        )
        return row, True

    def _alone(self) -> None:
        """One registration a workspace at a time until the transaction ends, so that versions are counted without gap
        or double. Not FOR UPDATE: that would also wait for every transaction that inserts a row of this workspace."""
        self._session.execute(
            select(WorkspaceRow.id).where(WorkspaceRow.id == self._workspace).with_for_update(key_share=True)
        )

    def _numbered(self, family: str, **fields: Any) -> OptimizerRow:
        """A row with these fields and the family's next version."""
        for _ in range(10):
            version = self.next_version(family)
            named = {"id": new_id("opt"), "workspace": self._workspace, "family": family, "version": version}
            row = OptimizerRow(**named, **fields, created_at=clock())
            try:
                with self._session.begin_nested():
                    self._session.add(row)
            except IntegrityError:  # the constraint is the last guard, should anyone register without the lock
                if fields.get("job") is not None and self.of_job(fields["job"]) is not None:
                    raise
                continue
            return row
        raise AssertionError(f"ten others took each next version of {family}")

    def _measured(
        self, family: str, sha256: str, criterion: str, own_tasks: bool, stands_for: str | None
    ) -> OptimizerRow | None:
        """The family's tuned baseline with these bytes, or its schedule that stands for that optimizer."""
        same = self._all().where(OptimizerRow.family == family, OptimizerRow.sha256 == sha256)
        same = same.where(OptimizerRow.criterion == criterion, OptimizerRow.own_tasks == own_tasks)
        by = OptimizerRow.tuned if stands_for is None else OptimizerRow.stands_for == stands_for
        return self._session.scalar(same.where(by).limit(1))
