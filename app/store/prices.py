"""What jobs are predicted to take, by what earlier jobs of the workspace took, and how right predictions were.

A worker writes its prediction into the job's `runtime` before it begins, from jobs that had ended by then. A job with
the same settings is the best measure. Where there is none, a preview's calibration is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import assert_never

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store.earlier import (
    COUNTS,
    LISTED,
    RUNS,
    Earlier,
    calibrations,
    device_of,
    evaluations,
    measured_by,
    of_one_machine,
    plan_of,
    settings_of,
    trainings,
)
from app.store.tables import JobRow
from models.price import (
    Calibration,
    MeasuringPace,
    Seconds,
    TrainingPace,
    calibrated_measuring,
    calibrated_training,
    measuring_seconds,
    training_seconds,
    validations,
)
from models.spec import EvaluateSpec, EvaluationPlan, JobSpec, MetaTrainSpec, PreviewSpec, Recipe, SweepSpec

COUNTED = 200  # finished jobs, for the error


@dataclass(frozen=True)
class Error:
    """Actual over predicted seconds of the newest finished jobs of a workspace; None where there is none yet."""

    p10: float | None
    p50: float | None
    p90: float | None
    jobs: int


def predicted(session: Session, workspace: str, spec: JobSpec) -> Seconds | None:
    """What the job itself takes, without what follows it; None where nothing like it was measured here."""
    match spec:
        case MetaTrainSpec():
            training = _training_pace(session, workspace, spec)
            return None if training is None else training_seconds(spec, training)
        case EvaluateSpec():
            before = _evaluations(session, workspace, spec)
            measuring = _measuring_pace(session, workspace, spec, before)
            return None if measuring is None else measuring_seconds(spec, measuring, _stored(spec, before))
        case PreviewSpec():
            return None  # it is what measures
        case SweepSpec():
            return None  # its children have prices of their own
        case _:
            assert_never(spec)


def error(session: Session, workspace: str) -> Error:
    """Jobs count whose first attempt ran from its beginning to its end."""
    query = (
        select(JobRow.runtime[("predicted", "seconds", "total")], JobRow.started_at, JobRow.finished_at)
        .where(JobRow.workspace == workspace, JobRow.status == "succeeded", JobRow.attempt == 1)
        .order_by(JobRow.id.desc())
        .limit(COUNTED)
    )
    ratios = sorted(
        (ended - began).total_seconds() / seconds
        for seconds, began, ended in session.execute(query)
        if seconds and began and ended
    )
    if not ratios:
        return Error(None, None, None, 0)
    p10, p50, p90 = (ratios[min(len(ratios) - 1, int(share * len(ratios)))] for share in (0.1, 0.5, 0.9))
    return Error(p10, p50, p90, len(ratios))


def _training_pace(session: Session, workspace: str, spec: MetaTrainSpec) -> TrainingPace | None:
    own = spec.model_dump(mode="json")
    wanted = settings_of(own, COUNTS)
    found = [
        each
        for each in trainings(session, workspace, spec.family.name)
        if settings_of(each.spec, COUNTS) == wanted and "cost" in each.recorded
    ]
    if found:
        return _of_trainings(of_one_machine(found))
    loosely = COUNTS | RUNS
    for job, host, recorded, calibration in calibrations(session, workspace, spec.family.name):
        if settings_of(recorded, loosely) == settings_of(own, loosely):
            return calibrated_training(spec, calibration, f"on {host} by {job}")
    return None


def _of_trainings(jobs: Sequence[Earlier]) -> TrainingPace:
    """The median of several."""
    steps, checks, besides = [], [], []
    for each in jobs:
        cost, done = each.recorded["cost"], each.recorded["meta_steps"]
        training, selection = cost["training"]["seconds"], cost["selection"]["seconds"]
        recipe = Recipe.model_validate(each.spec["recipe"]).model_copy(update={"meta_steps": done})
        steps.append(training / done)
        checks.append(selection / max(1, validations(recipe)))
        if each.whole:
            besides.append(max(0.0, each.seconds - training - selection))
    return TrainingPace(median(steps), median(checks), median(besides or [0.0]), measured_by(jobs))


def _evaluations(session: Session, workspace: str, spec: EvaluateSpec) -> list[Earlier]:
    """Evaluations by the same plan on the same tasks, newest first: those of the same rule, and then others."""
    own = spec.model_dump(mode="json")
    found = [
        each
        for each in evaluations(session, workspace, spec.family.name)
        if plan_of(each.spec) == plan_of(own) and "phases" in each.recorded
    ]
    return sorted(found, key=lambda each: (each.spec["rule"], each.spec["rules"]) != (own["rule"], own["rules"]))


def _measuring_pace(
    session: Session, workspace: str, spec: EvaluateSpec, before: Sequence[Earlier]
) -> MeasuringPace | None:
    plan = spec.evaluation
    stored = _stored(spec, before)
    needed = [name for name in (*plan.baselines, *plan.untuned) if name not in stored]
    found = _of_evaluations(of_one_machine(before)) if before else None
    if found is not None and not _lacking(found, plan, needed):
        return found
    for job, host, recorded, calibration in calibrations(session, workspace, spec.family.name):
        fits = recorded["family"]["tasks"] == spec.family.tasks.model_dump(mode="json")
        fits = fits and device_of(recorded) == device_of(spec.model_dump(mode="json"))
        rule = recorded["recipe"]["rule"] == spec.rule.model_dump(mode="json")
        if not fits or not set(needed) <= calibration.baselines.keys() or not (rule or found):
            continue
        knows = any(each.config.knows_steps for each in (spec.rule, *spec.rules.values()))
        asked = plan.model_copy(update={name: _known(plan, name, calibration) for name in LISTED})
        told = calibrated_measuring(asked, knows, calibration, f"on {host} by {job}", spec.training)
        if found is None:
            return told
        return replace(found, tuning={**told.tuning, **found.tuning}, test={**told.test, **found.test})
    return None


def _of_evaluations(jobs: Sequence[Earlier]) -> MeasuringPace:
    """The median of several, and for a baseline the newest that computed its runs."""
    costs = [each.recorded["phases"] for each in jobs]
    learned, besides = (median(cost[part] for cost in costs) for part in ("learned", "besides"))
    besides += median(max(0.0, each.seconds - each.recorded["seconds"]) for each in jobs)
    newest = {
        part: {name: seconds for cost in reversed(costs) for name, seconds in cost[part].items()}
        for part in ("tuning", "test")
    }
    return MeasuringPace(learned, newest["tuning"], newest["test"], besides, measured_by(jobs))


def _known(plan: EvaluationPlan, field: str, calibration: Calibration) -> tuple[str, ...]:
    return tuple(name for name in getattr(plan, field) if name in calibration.baselines)


def _lacking(pace: MeasuringPace, plan: EvaluationPlan, needed: Sequence[str]) -> bool:
    tuned = set(plan.baselines)
    return any(name not in pace.test or (name in tuned and name not in pace.tuning) for name in needed)


def _stored(spec: EvaluateSpec, before: Sequence[Earlier]) -> set[str]:
    """Baselines whose runs an evaluation of the same tasks has left in the database."""
    names = {*spec.evaluation.baselines, *spec.evaluation.untuned}
    plans = [each.spec["evaluation"] for each in before if each.spec["seed"] == spec.seed]
    return names & {name for plan in plans for listed in LISTED for name in plan[listed]}
