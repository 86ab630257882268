"""What a request would cost, without a job: everything is validated as for a job, and nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.auth import Caller
from app.http.problems import Problem
from app.jobs import kinds
from app.jobs.data import refuse_missing_data
from app.jobs.dispatch import Dispatcher
from app.jobs.kinds import AnyRequest
from app.jobs.room import estimate_bytes, refuse_too_large
from app.jobs.schemas import PredictedSeconds, Price, PriceError, QueueTime
from app.jobs.submission import prepared
from app.jobs.sweeps import pricing as sweeps_pricing
from app.settings import Settings
from app.store import keys, prices
from app.store.families import DeclaredFamilies
from app.store.registry import Registry
from app.store.sessions import Database
from app.store.sql import LOCK_SECONDS, wait_for_locks
from app.store.tables import JobRow
from app.store.transitions import ACTIVE
from models.price import Seconds
from models.spec import EvaluateSpec, EvaluationPlan, JobSpec, MetaTrainSpec, PreviewSpec, SweepSpec

_RECENT = 20  # finished jobs, for what a job in the queue takes


@dataclass(frozen=True)
class Pricing:
    """Prices requests of one caller."""

    settings: Settings
    database: Database
    dispatcher: Dispatcher

    def priced(self, body: AnyRequest, caller: Caller) -> Price:
        """Raises what a POST of the same body would be refused for."""
        ready = prepared(body, caller, self.settings)
        keyed = caller.api_key is not None
        with self.database.write() if keyed else self.database.read() as session:
            if caller.api_key is not None:
                wait_for_locks(session, LOCK_SECONDS)
                keys.quotas(session, {caller.api_key}, self.settings.max_active_jobs)[caller.api_key].take()
            spec = self._resolved(session, body, caller) if ready.spec is None else ready.spec
            assert not isinstance(spec, Problem)
            return self._price(session, caller.workspace, spec)

    def _resolved(self, session: Session, body: AnyRequest, caller: Caller) -> JobSpec:
        registry, declared = Registry(session, caller.workspace), DeclaredFamilies(session, caller.workspace)
        spec = kinds.resolved(body, registry, declared, self.settings.backend)
        refuse_missing_data(spec, self.settings)
        refuse_too_large(spec, self.settings.worker_memory_bytes)
        return spec

    def _price(self, session: Session, workspace: str, spec: JobSpec) -> Price:
        seconds = _seconds(session, workspace, spec)
        following = spec.follow_up("")
        if seconds is not None and following is not None:
            after = prices.predicted(session, workspace, following)
            seconds = None if after is None else seconds + after
        family = spec.family.name
        return Price(
            kind=spec.kind,
            family=family,
            coordinates_per_task=spec.family.tasks.coordinates_per_task,
            memory_bytes=estimate_bytes(spec),
            seconds=None if seconds is None else PredictedSeconds(**seconds.told["seconds"]),
            rests_on=[] if seconds is None else list(seconds.rests_on),
            advice=_advice(family, seconds),
            error=PriceError(**vars(prices.error(session, workspace))),
            queue=self._queue(session, spec.resources.device),
            notes=_notes(spec),
            spec=spec.model_dump(mode="json"),
        )

    def _queue(self, session: Session, device: str) -> QueueTime:
        """Each job that waits is taken for as long as the newest finished ones of the device were in the mean."""
        running = session.execute(
            select(JobRow.eta_seconds).where(JobRow.status.in_(ACTIVE), JobRow.device == device, JobRow.kind != "sweep")
        ).all()
        waiting = session.scalar(
            select(func.count()).select_from(JobRow).where(JobRow.status == "queued", JobRow.device == device)
        )
        workers = self.dispatcher.workers(device)
        return QueueTime(
            jobs=len(running) + (waiting or 0),
            workers=workers,
            seconds=self._until_free(session, device, [eta for (eta,) in running], waiting or 0, workers),
        )

    @staticmethod
    def _until_free(
        session: Session, device: str, running: list[float | None], waiting: int, workers: int | None
    ) -> float | None:
        if not workers:
            return None
        if waiting == 0 and len(running) < workers:
            return 0.0
        ended = session.execute(
            select(JobRow.started_at, JobRow.finished_at)
            .where(JobRow.status == "succeeded", JobRow.device == device, JobRow.kind != "sweep")
            .order_by(JobRow.id.desc())
            .limit(_RECENT)
        ).all()
        took = [(end - begin).total_seconds() for begin, end in ended if begin and end]
        if not took:
            return None
        usual = sum(took) / len(took)
        left = sum(usual / 2 if eta is None else eta for eta in running)
        return (left + waiting * usual) / workers


def _seconds(session: Session, workspace: str, spec: JobSpec) -> Seconds | None:
    if spec.needs_worker:
        return prices.predicted(session, workspace, spec)
    assert isinstance(spec, SweepSpec), "the only kind that no worker runs"
    return sweeps_pricing.predicted(session, workspace, spec)


def _advice(family: str, seconds: Seconds | None) -> str | None:
    """How to learn the seconds, where they are not known."""
    if seconds is not None:
        return None
    return (
        f"Nothing like this was measured here yet. POST /families/{family}/preview takes seconds and times a few steps "
        f"of a training and its evaluation: give it the same tasks, recipe and resources, and ask again."
    )


def _notes(spec: JobSpec) -> list[str]:
    match spec:
        case MetaTrainSpec():
            notes = []
            if (patience := spec.recipe.patience) is not None:
                notes.append(
                    f"The seconds are of all {spec.recipe.meta_steps:,} meta-steps; {patience} validations without a "
                    f"new best end the training earlier."
                )
            return notes + (_about_the_tier(spec.evaluation) if spec.evaluate else [])
        case EvaluateSpec():
            return _about_the_tier(spec.evaluation)
        case PreviewSpec():
            return []
        case SweepSpec():
            trainings = f"{spec.total} trainings" if spec.total > 1 else "one training"
            best = ", and of the best one's evaluation" if spec.evaluate else ""
            return [
                f"The seconds are of one worker for {trainings}{best}. As many as {spec.parallel} run at a time where "
                f"there are workers.",
                *(_about_the_tier(spec.evaluation) if spec.evaluate else []),
            ]
        case _:
            assert_never(spec)


def _about_the_tier(plan: EvaluationPlan) -> list[str]:
    if not plan.family_tier:
        return []
    return ["The family tier trains about as long again, which a calibration does not count."]
