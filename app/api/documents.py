"""Rows of the store as the documents that users read: each is written in one place."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.api.schemas import Alias, EvaluationSummary, Optimizer, Uploaded
from app.api.schemas import Pays as PaysDocument
from app.report.card import CardFacts
from app.report.pays import Pays, Subject, deciding, pays, pays_on
from app.store.aliases import tag_of
from app.store.jobs import JobRepository
from app.store.records import Measured, Record, records, unfinished_evaluations
from app.store.registry import Registry
from app.store.tables import AliasRow, OptimizerRow


def optimizer_documents(session: Session, workspace: str, rows: Sequence[OptimizerRow]) -> list[Optimizer]:
    """The optimizers of these rows, all of which belong to that workspace."""
    return [
        Optimizer(
            id=record.row.id,
            family=record.row.family,
            version=record.row.version,
            reference=f"{record.row.family}@{record.row.version}",
            aliases=record.aliases,
            tags=record.tags,
            job=record.row.job,
            sha256=record.row.sha256,
            size_bytes=record.size_bytes,
            validation_score=record.row.validation_score,
            overrides=record.overrides,
            automatic=record.row.automatic,
            tuned=record.row.tuned,
            stands_for=record.row.stands_for,
            pays=_pays(pays(_subject(record), [measured.facts for measured in record.evaluations])),
            card=record.row.card,
            description=record.row.description,
            archived_at=record.row.archived_at,
            uploaded=Uploaded(**record.row.uploaded) if record.row.uploaded is not None else None,
            evaluations=_summaries(record),
            created_at=record.row.created_at,
        )
        for record in records(session, workspace, rows)
    ]


def _unscored(row: OptimizerRow) -> bool:
    """Whether it was uploaded and nobody has evaluated it here."""
    return row.uploaded is not None and row.validation_score is None


def _subject(record: Record) -> Subject:
    row = record.row
    return Subject(
        reference=f"{row.family}@{row.version}",
        family=row.family,
        horizon=record.horizon,
        objective=record.objective or "both",
        overrides=record.overrides,
        shortfall=None if row.automatic or _unscored(row) else "worse_than_standing_still",
        tuned=row.card["tuned"] if row.tuned else None,
        stands_for=row.stands_for,
    )


def _summaries(record: Record) -> list[EvaluationSummary]:
    subject = _subject(record)
    decides = deciding(subject, [measured.facts for measured in record.evaluations])
    return [_summary(subject, measured, decides=measured.facts is decides) for measured in record.evaluations]


def _summary(subject: Subject, measured: Measured, *, decides: bool) -> EvaluationSummary:
    known = {name: value for name, value in vars(measured).items() if name != "facts"}
    return EvaluationSummary(**known, decides=decides, pays=_pays(pays_on(subject, measured.facts)))


def _pays(found: Pays) -> PaysDocument:
    return PaysDocument(advice=found.advice, answer=found.answer)


def etag_of_alias(row: AliasRow) -> str:
    return f'"{tag_of(row)}"'


def alias_document(row: AliasRow, optimizer: OptimizerRow) -> Alias:
    return Alias(
        family=row.family,
        alias=row.alias,
        reference=f"{row.family}@{row.alias}",
        optimizer=row.optimizer,
        version=optimizer.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        etag=etag_of_alias(row),
    )


def card_facts(session: Session, row: OptimizerRow) -> CardFacts:
    registry = Registry(session, row.workspace)
    job = JobRepository(session, row.workspace).get(row.job) if row.job is not None else None
    [record] = records(session, row.workspace, [row])
    return CardFacts(
        id=row.id,
        reference=f"{row.family}@{row.version}",
        created_at=row.created_at,
        sha256=row.sha256,
        size_bytes=record.size_bytes,
        aliases=[f"{row.family}@{alias}" for alias in record.aliases],
        validation_score=row.validation_score,
        shortfall=None if row.automatic else row.card.get("shortfall", job.status_reason if job else None),
        job=row.job,
        spec=registry.made_with(row),
        runtime=job.runtime if job else {},
        summary=row.card,
        evaluations=[(evaluation.job, evaluation.result) for evaluation in registry.evaluations(row.id)],
        tuned=row.card["tuned"] if row.tuned else None,
        stands_for=row.stands_for,
        measuring=unfinished_evaluations(session, row),
        uploaded=row.uploaded,
        description=row.description,
        archived_at=row.archived_at,
        pays=pays(_subject(record), [measured.facts for measured in record.evaluations]).answer,
    )
