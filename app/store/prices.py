"""What jobs are predicted to take, by what earlier jobs of the workspace took, and how right predictions were.

A worker writes its prediction into the job's `runtime` before it begins, from jobs that had ended by then. A job with
the same settings is the best measure. Where there is none, a preview's calibration is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, assert_never

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store.tables import EvaluationRow, JobRow, OptimizerRow
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
from models.spec import EvaluateSpec, EvaluationPlan, JobKind, JobSpec, MetaTrainSpec, PreviewSpec, Recipe

LOOKED_AT = 20  # earlier jobs of the family, newest first
MEDIAN_OF = 5
COUNTED = 200  # finished jobs, for the error
_COUNTS = frozenset(
    {
        "meta_steps", "validation_interval", "plateau_patience", "patience", "rollback", "starts", "start_steps",
        "meta_learning_rate", "final_learning_rate_ratio", "gradient_clip", "averaging", "objective",
    }
)  # fmt: skip
"""Fields of a recipe that change how often something is done, or with which numbers, and not what it takes."""
_RUNS = frozenset({"validation_tasks", "validation_horizons", "horizon", "shortest_horizon"})
"""Fields whose part of the price a calibration computes."""
_LISTED = frozenset({"baselines", "untuned"})


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
            evaluations = _evaluations(session, workspace, spec)
            measuring = _measuring_pace(session, workspace, spec, evaluations)
            return None if measuring is None else measuring_seconds(spec, measuring, _stored(spec, evaluations))
        case PreviewSpec():
            return None  # it is what measures
        case _:
            assert_never(spec)


def error(session: Session, workspace: str) -> Error:
    """Of attempts that ran from their beginning to their end."""
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


@dataclass(frozen=True)
class Earlier:
    """A job that ended well. host: the machine; seconds: of its last attempt; recorded: what it wrote of its cost"""

    job: str
    spec: dict[str, Any]
    host: str
    whole: bool
    """Whether the first attempt was the last one."""
    seconds: float
    recorded: dict[str, Any]


def _earlier(session: Session, workspace: str, family: str, kind: JobKind) -> list[Earlier]:
    """The family's newest jobs of a kind, newest first."""
    training = kind == "meta_train"
    recorded = OptimizerRow.card["training"] if training else EvaluationRow.result["cost"]
    made = OptimizerRow.job == JobRow.id if training else EvaluationRow.job == JobRow.id
    columns: tuple[Any, ...] = (JobRow.id, JobRow.spec, JobRow.runtime["hostname"], JobRow.attempt)
    query = (
        select(*columns, JobRow.started_at, JobRow.finished_at, recorded)
        .join(OptimizerRow if training else EvaluationRow, made)
        .where(JobRow.workspace == workspace, JobRow.family == family)
        .where(JobRow.kind == kind, JobRow.status == "succeeded")
        .order_by(JobRow.id.desc())
        .limit(LOOKED_AT)
    )
    return [
        Earlier(job, spec, str(host), attempt == 1, (ended - began).total_seconds(), found)
        for job, spec, host, attempt, began, ended, found in session.execute(query)
        if began and ended and found
    ]


def _training_pace(session: Session, workspace: str, spec: MetaTrainSpec) -> TrainingPace | None:
    own = spec.model_dump(mode="json")
    wanted = _settings_of(own, _COUNTS)
    found = [
        each
        for each in _earlier(session, workspace, spec.family.name, "meta_train")
        if _settings_of(each.spec, _COUNTS) == wanted and "cost" in each.recorded
    ]
    if found:
        return _of_trainings(_of_one_machine(found))
    loosely = _COUNTS | _RUNS
    for job, host, recorded, calibration in _calibrations(session, workspace, spec.family.name):
        if _settings_of(recorded, loosely) == _settings_of(own, loosely):
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
    return TrainingPace(median(steps), median(checks), median(besides or [0.0]), _measured_by(jobs))


def _evaluations(session: Session, workspace: str, spec: EvaluateSpec) -> list[Earlier]:
    """Evaluations by the same plan on the same tasks, newest first: those of the same rule, and then others."""
    own = spec.model_dump(mode="json")
    found = [
        each
        for each in _earlier(session, workspace, spec.family.name, "evaluate")
        if _plan_of(each.spec) == _plan_of(own) and "phases" in each.recorded
    ]
    return sorted(found, key=lambda each: (each.spec["rule"], each.spec["rules"]) != (own["rule"], own["rules"]))


def _measuring_pace(
    session: Session, workspace: str, spec: EvaluateSpec, earlier: Sequence[Earlier]
) -> MeasuringPace | None:
    plan = spec.evaluation
    stored = _stored(spec, earlier)
    needed = [name for name in (*plan.baselines, *plan.untuned) if name not in stored]
    found = _of_evaluations(_of_one_machine(earlier)) if earlier else None
    if found is not None and not _lacking(found, plan, needed):
        return found
    for job, host, recorded, calibration in _calibrations(session, workspace, spec.family.name):
        fits = recorded["family"]["tasks"] == spec.family.tasks.model_dump(mode="json")
        fits = fits and _device_of(recorded) == _device_of(spec.model_dump(mode="json"))
        rule = recorded["recipe"]["rule"] == spec.rule.model_dump(mode="json")
        if not fits or not set(needed) <= calibration.baselines.keys() or not (rule or found):
            continue
        knows = any(each.config.knows_steps for each in (spec.rule, *spec.rules.values()))
        asked = plan.model_copy(update={name: _known(plan, name, calibration) for name in _LISTED})
        told = calibrated_measuring(asked, knows, calibration, f"on {host} by {job}")
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
    return MeasuringPace(learned, newest["tuning"], newest["test"], besides, _measured_by(jobs))


def _known(plan: EvaluationPlan, field: str, calibration: Calibration) -> tuple[str, ...]:
    return tuple(name for name in getattr(plan, field) if name in calibration.baselines)


def _lacking(pace: MeasuringPace, plan: EvaluationPlan, needed: Sequence[str]) -> bool:
    tuned = set(plan.baselines)
    return any(name not in pace.test or (name in tuned and name not in pace.tuning) for name in needed)


def _stored(spec: EvaluateSpec, earlier: Sequence[Earlier]) -> set[str]:
    """Baselines whose runs an evaluation of the same tasks has left in the database."""
    names = {*spec.evaluation.baselines, *spec.evaluation.untuned}
    plans = [each.spec["evaluation"] for each in earlier if each.spec["seed"] == spec.seed]
    return names & {name for plan in plans for listed in _LISTED for name in plan[listed]}


def _calibrations(session: Session, workspace: str, family: str) -> list[tuple[str, str, dict[str, Any], Calibration]]:
    """Of the family's previews, newest first: job, machine, the spec of the training that was timed, and its times."""
    query = (
        select(JobRow.id, JobRow.runtime["hostname"], JobRow.spec["training"], EvaluationRow.result["calibration"])
        .join(EvaluationRow, EvaluationRow.job == JobRow.id)
        .where(JobRow.workspace == workspace, JobRow.family == family, JobRow.kind == "preview")
        .order_by(JobRow.id.desc())
        .limit(LOOKED_AT)
    )
    return [
        (job, str(host), spec, Calibration.model_validate(found))
        for job, host, spec, found in session.execute(query)
        if spec and found
    ]


def _settings_of(spec: Mapping[str, Any], without: frozenset[str]) -> dict[str, Any]:
    """What the seconds of a training's parts depend on."""
    recipe = {name: value for name, value in spec["recipe"].items() if name not in without}
    return {"tasks": spec["family"]["tasks"], "recipe": recipe, "resources": spec["resources"]}


def _plan_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What the seconds of an evaluation's parts depend on, and which runs of baselines it leaves."""
    plan = {name: value for name, value in spec["evaluation"].items() if name not in _LISTED}
    return {"tasks": spec["family"]["tasks"], "plan": plan, "device": _device_of(spec)}


def _device_of(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    return spec["resources"]["device"], spec["resources"]["threads"], spec["resources"]["backend"] == "reference"


def _of_one_machine(jobs: Sequence[Earlier]) -> list[Earlier]:
    """The newest ones of the machine that ran the newest."""
    return [each for each in jobs if each.host == jobs[0].host][:MEDIAN_OF]


def _measured_by(jobs: Sequence[Earlier]) -> str:
    others = f" and {len(jobs) - 1} more" if len(jobs) > 1 else ""
    return f"measured on {jobs[0].host} by {jobs[0].job}{others}"
