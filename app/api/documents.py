"""Rows of the store as the documents that users read: each is written in one place."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.api.schemas import Alias, EvaluationSummary, Optimizer
from app.api.schemas import Pays as PaysDocument
from app.report.card import CardFacts
from app.report.pays import Pays, Subject, pays, pays_on
from app.store.aliases import tag_of
from app.store.jobs import JobRepository
from app.store.provenance import made_with
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
            evaluations=[_summary(_subject(record), measured) for measured in record.evaluations],
            created_at=record.row.created_at,
        )
        for record in records(session, workspace, rows)
    ]


def _subject(record: Record) -> Subject:
    row = record.row
    return Subject(
        reference=f"{row.family}@{row.version}",
        family=row.family,
        horizon=record.horizon,
        objective=record.objective or "both",
        overrides=record.overrides,
        shortfall=None if row.automatic else "worse_than_standing_still",
        tuned=row.card["tuned"] if row.tuned else None,
        stands_for=row.stands_for,
    )


def _summary(subject: Subject, measured: Measured) -> EvaluationSummary:
    known = {name: value for name, value in vars(measured).items() if name != "facts"}
    return EvaluationSummary(**known, pays=_pays(pays_on(subject, measured.facts)))


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
    registry, job = Registry(session, row.workspace), JobRepository(session, row.workspace).get(row.job)
    [record] = records(session, row.workspace, [row])
    return CardFacts(
        id=row.id,
        reference=f"{row.family}@{row.version}",
        created_at=row.created_at,
        sha256=row.sha256,
        size_bytes=record.size_bytes,
        aliases=[f"{row.family}@{alias}" for alias in record.aliases],
        validation_score=row.validation_score,
        shortfall=None if row.automatic else row.card.get("shortfall", job.status_reason),
        job=row.job,
        spec=made_with(row, job),
        runtime=job.runtime,
        summary=row.card,
        evaluations=[(evaluation.job, evaluation.result) for evaluation in registry.evaluations(row.id)],
        tuned=row.card["tuned"] if row.tuned else None,
        stands_for=row.stands_for,
        measuring=unfinished_evaluations(session, row),
        pays=pays(_subject(record), [measured.facts for measured in record.evaluations]).answer,
    )
