"""Earlier jobs of a family, which prices rest on: what each was asked for, and what it wrote of its cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.store.tables import EvaluationRow, JobRow, OptimizerRow
from models.price import Calibration

LOOKED_AT = 20  # newest first
MEDIAN_OF = 5

COUNTS = frozenset(
    {
        "meta_steps", "validation_interval", "plateau_patience", "patience", "rollback", "starts", "start_steps",
        "meta_learning_rate", "final_learning_rate_ratio", "gradient_clip", "averaging", "objective",
    }
)  # fmt: skip
"""Fields of a recipe that change how often something is done, or with which numbers, and not what it takes."""
RUNS = frozenset({"validation_tasks", "validation_horizons", "horizon", "shortest_horizon"})
"""Fields whose part of the price a calibration computes."""
LISTED = frozenset({"baselines", "untuned"})


_JOB: tuple[Any, ...] = (
    JobRow.id, JobRow.spec, JobRow.runtime["hostname"], JobRow.attempt, JobRow.started_at, JobRow.finished_at
)  # fmt: skip


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


def trainings(session: Session, workspace: str, family: str) -> list[Earlier]:
    """The family's newest ones, newest first; recorded: what their optimizers' cards say of the training."""
    asked = select(*_JOB, OptimizerRow.card["training"]).join(OptimizerRow, OptimizerRow.job == JobRow.id)
    return _earlier(session, workspace, asked.where(JobRow.family == family, JobRow.kind == "meta_train"))


def evaluations(session: Session, workspace: str, family: str) -> list[Earlier]:
    """The family's newest ones, newest first; recorded: what their results say of their cost."""
    asked = select(*_JOB, EvaluationRow.result["cost"]).join(EvaluationRow, EvaluationRow.job == JobRow.id)
    return _earlier(session, workspace, asked.where(JobRow.family == family, JobRow.kind == "evaluate"))


def _earlier(session: Session, workspace: str, asked: Select[Any]) -> list[Earlier]:
    query = asked.where(JobRow.workspace == workspace, JobRow.status == "succeeded")
    rows: Iterable[Any] = session.execute(query.order_by(JobRow.id.desc()).limit(LOOKED_AT))
    return [
        Earlier(job, spec, str(host), attempt == 1, (ended - began).total_seconds(), found)
        for job, spec, host, attempt, began, ended, found in rows
        if began and ended and found
    ]


def calibrations(session: Session, workspace: str, family: str) -> list[tuple[str, str, dict[str, Any], Calibration]]:
    """Calibrations of the family, newest first: job, machine, the spec of the training that was timed, its times."""
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


def settings_of(spec: Mapping[str, Any], without: frozenset[str]) -> dict[str, Any]:
    """What the seconds of a training's parts depend on."""
    recipe = {name: value for name, value in spec["recipe"].items() if name not in without}
    return {"tasks": spec["family"]["tasks"], "recipe": recipe, "resources": spec["resources"]}


def plan_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What the seconds of an evaluation's parts depend on, and which runs of baselines it leaves."""
    plan = {name: value for name, value in spec["evaluation"].items() if name not in LISTED}
    return {"tasks": spec["family"]["tasks"], "plan": plan, "device": device_of(spec)}


def device_of(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    return spec["resources"]["device"], spec["resources"]["threads"], spec["resources"]["backend"] == "reference"


def of_one_machine(jobs: Sequence[Earlier]) -> list[Earlier]:
    """The newest ones of the machine that ran the newest."""
    return [each for each in jobs if each.host == jobs[0].host][:MEDIAN_OF]


def measured_by(jobs: Sequence[Earlier]) -> str:
    others = f" and {len(jobs) - 1} more" if len(jobs) > 1 else ""
    return f"measured on {jobs[0].host} by {jobs[0].job}{others}"
