"""What clients, workers and the reconciler do to the store, in one line each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.store import events, leases, outcomes
from app.store.curve_format import Points
from app.store.events import EventId, JobEvent
from app.store.jobs import JobRepository
from app.store.leases import Lease
from app.store.outcomes import Outcome
from app.store.sessions import Database
from app.store.tables import JobRow, OptimizerRow
from models.families import FAMILIES
from models.spec import EvaluateSpec, MetaTrainSpec, Resources


def training(family: str = "quadratic", *, evaluate: bool = False, device: Any = "cpu") -> MetaTrainSpec:
    spec = FAMILIES[family]
    return MetaTrainSpec(
        family=spec,
        seed=2**63 - 1,
        recipe=spec.recipe,
        evaluate=evaluate,
        evaluation=spec.evaluation,
        resources=Resources(device=device),
    )


def evaluation(optimizer: str) -> EvaluateSpec:
    spec = FAMILIES["quadratic"]
    return EvaluateSpec(optimizer=optimizer, family=spec, seed=0, evaluation=spec.evaluation, resources=Resources())


def points(first: int, count: int, loss: Callable[[int], float] = lambda step: 1.0 / step) -> Points:
    """Steps first, first+1, ...; every tenth has a validation score."""
    steps = list(range(first, first + count))
    return Points(
        steps,
        [loss(step) for step in steps],
        [0.5 * step for step in steps],
        [2.0 / step if step % 10 == 0 else None for step in steps],
        [1e-3 / step for step in steps],
        [step % 7 == 0 for step in steps],
    )


def metrics(attempt: int, sequence: int, values: Points) -> JobEvent:
    return JobEvent.metrics(EventId(attempt, sequence), values)


@dataclass
class Bench:
    """One database, a transaction a call: what a client, a worker or the reconciler would do."""

    database: Database

    def create(self, spec: MetaTrainSpec | EvaluateSpec | None = None, **options: Any) -> JobRow:
        with self.database.write() as session:
            return JobRepository(session).create(spec or training(), **options)

    def get(self, job_id: str) -> JobRow:
        with self.database.read() as session:
            return JobRepository(session).get(job_id)

    def cancel(self, job_id: str) -> JobRow:
        with self.database.write() as session:
            return JobRepository(session).cancel(job_id)

    def retry(self, job_id: str) -> JobRow:
        with self.database.write() as session:
            return JobRepository(session).retry(job_id)

    def claim(self, job: JobRow, owner: str = "worker", attempt: int | None = None, seconds: float = 60) -> Lease:
        lease = Lease(job.id, attempt or job.attempt, owner)
        with self.database.write() as session:
            assert leases.claim(session, lease, seconds, {"torch": "2.13.0"}) is not None
        return lease

    def running(self, spec: MetaTrainSpec | EvaluateSpec | None = None) -> Lease:
        return self.claim(self.create(spec))

    def record(self, lease: Lease, *new: JobEvent) -> str:
        with self.database.write() as session:
            return leases.record(session, lease, new)

    def finish(
        self,
        lease: Lease,
        sequence: int = 1,
        weights: bytes = b"weights",
        score: float | None = 1.0,
        last: Sequence[JobEvent] = (),
        shortfall: str | None = None,
    ) -> Outcome:
        with self.database.write() as session:
            return outcomes.finish_training(
                session,
                lease,
                EventId(lease.attempt, sequence),
                weights=weights,
                validation_score=score,
                card={"cost": {"seconds": 1.5}},
                shortfall=shortfall,
                last_events=last,
            )

    def finish_evaluation(
        self,
        optimizer: str,
        weights: bytes,
        score: float,
        shortfall: str | None = None,
        stands_for: str | None = None,
    ) -> list[OptimizerRow]:
        """Run an evaluation whose best tuned baseline this is, or its schedule that `stands_for` an optimizer. Returns
        all that evaluations made, oldest first."""
        lease = self.running(evaluation(optimizer))
        recipe = FAMILIES["quadratic"].recipe
        tuned = {"baseline": "adam", "learning_rate": 0.1, "schedule": "constant", "steps": 100}
        card = {"tuned": tuned, "recipe": recipe.model_dump(mode="json"), "shortfall": shortfall}
        found = outcomes.Found(weights, score, recipe.criterion, card, shortfall, stands_for)
        with self.database.write() as session:
            event = EventId(lease.attempt, 1)
            outcomes.finish_with_result(session, lease, event, result={"format": 3}, found=found)
        with self.database.read() as session:
            made = OptimizerRow.tuned | OptimizerRow.stands_for.is_not(None)
            return list(session.scalars(select(OptimizerRow).where(made).order_by(OptimizerRow.version)))

    def fail(self, lease: Lease, reason: str = "it diverged") -> JobEvent:
        with self.database.write() as session:
            return leases.fail(session, lease, reason)

    def expire(self, job_id: str) -> None:
        """Let the lease run out, as after a minute without a sign of life."""
        with self.database.write() as session:
            session.execute(text("UPDATE jobs SET lease_expires_at = created_at WHERE id = :id"), {"id": job_id})

    def lapsed(self, max_lost_workers: int = 3, backoff_seconds: float = 0.0) -> list[leases.Lapse]:
        with self.database.write() as session:
            return leases.lapsed(session, max_lost_workers, backoff_seconds)

    def events(self, job_id: str, after: EventId = events.START) -> list[JobEvent]:
        """All stored events, read as a client would: page by page."""
        found: list[JobEvent] = []
        while True:
            with self.database.read() as session:
                replay = events.after(session, job_id, after, 50)
            found += replay.events
            if not replay.more:
                return found
            after = found[-1].id

    def read(self, query: Callable[[Session], Any]) -> Any:
        with self.database.read() as session:
            return query(session)

    def write(self, query: Callable[[Session], Any]) -> Any:
        with self.database.write() as session:
            return query(session)
