"""What a sweep has tried: as JSON, and as a picture."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app.api.dependencies import CallerDep, JobId, Services, ServicesDep
from app.auth import Caller
from app.http.delivery import NOT_MODIFIED, deliver
from app.http.problems import Problem, responses
from app.jobs.schemas import JobStatus
from app.openapi import examples
from app.report.search import search_figure
from app.store import sweeps
from app.store.jobs import JobRepository, spec_of
from app.store.tables import JobRow
from models.spec import SweepSpec

router = APIRouter(tags=["jobs"])

_FORMS = {"png": "image/png", "svg": "image/svg+xml"}
RENDERING = 1  # part of the ETag: raise it when the same search looks different than before


class SweptField(BaseModel):
    name: str = Field(description="Such as `recipe.meta_learning_rate`.")
    log: bool = Field(description="Whether its logarithm was drawn uniformly.")


class TrialResult(BaseModel):
    number: int = Field(description="Counts from 0.")
    rung: int = Field(description="Of successive halving, from 0; 0 without it.")
    values: dict[str, Any]
    job: str = Field(description="Its training.")
    status: JobStatus
    reason: str | None = Field(description="Why it failed or was cancelled, or is worse than standing still.")
    optimizer: str | None
    score: float | None = Field(description="Its validation score, lower is better; null where there is none.")
    best_so_far: float | None = Field(description="The lowest score up to this trial, by number.")
    seconds: float | None = Field(description="That its last attempt ran; null until it has ended.")


class Search(BaseModel):
    job: str
    family: str
    status: JobStatus
    sampler: str
    criterion: str = Field(description="What the scores are of: the same validation tasks for all trials.")
    total: int = Field(description="Trials that there will be; fewer where halving finds too few that succeeded.")
    best: int | None = Field(description="The number of the best trial so far. Its optimizer is the sweep's result.")
    fields: list[SweptField]
    trials: list[TrialResult]


_EXAMPLE: dict[str, Any] = {
    "job": examples.JOB_ID,
    "family": "quadratic",
    "status": "running",
    "sampler": "random",
    "criterion": "area of 128 tasks after 100 steps",
    "total": 20,
    "best": 0,
    "fields": [{"name": "recipe.meta_learning_rate", "log": True}],
    "trials": [
        {
            "number": 0,
            "rung": 0,
            "values": {"recipe.meta_learning_rate": 0.0037},
            "job": examples.EVALUATION_ID,
            "status": "succeeded",
            "reason": None,
            "optimizer": examples.OPTIMIZER_ID,
            "score": 2.41,
            "best_so_far": 2.41,
            "seconds": 31.5,
        }
    ],
}


@router.get(
    "/jobs/{job_id}/search",
    operation_id="jobs_search",
    summary="What a sweep has tried so far: values, scores, and which is the best",
    description="Also while it runs. `search.png` and `search.svg` draw it.",
    response_model=Search,
    responses={
        200: {"content": {"application/json": {"example": _EXAMPLE}}},
        304: NOT_MODIFIED,
        **responses("job_not_found", "no_search", "not_installed", "precondition_failed"),
    },
)
def jobs_search(job_id: JobId, request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    content = _search(services, caller, job_id).model_dump_json().encode()
    return deliver(request.headers, content, "application/json", cache_control="private, no-cache", negotiated=False)


def _is_drawn(form: str, media_type: str) -> None:
    """GET /jobs/{job_id}/search.<form>"""

    def drawn(job_id: JobId, request: Request, services: ServicesDep, caller: CallerDep) -> Response:
        search = _search(services, caller, job_id).model_dump()
        states = "".join(trial["status"][0] for trial in search["trials"])

        return deliver(
            request.headers,
            lambda: search_figure(search, image_format="svg" if form == "svg" else "png"),
            media_type,
            cache_control="private, no-cache",
            etag=f'W/"{job_id}-{search["status"]}-{states}-{form}-{RENDERING}"',
            negotiated=False,
        )

    router.add_api_route(
        f"/jobs/{{job_id}}/search.{form}",
        drawn,
        operation_id=f"jobs_search_{form}",
        summary=f"What a sweep has tried so far, as `{media_type}`",
        description="Validation scores by trial with the best so far, and against each swept field.",
        response_class=Response,
        responses={
            200: {"content": {media_type: {"schema": {"type": "string", "format": "binary"}}}},
            304: NOT_MODIFIED,
            **responses("job_not_found", "no_search", "not_installed", "precondition_failed"),
        },
    )


for _form, _media_type in _FORMS.items():
    _is_drawn(_form, _media_type)


def _search(services: Services, caller: Caller, job_id: str) -> Search:
    """Raises Problem `no_search`."""
    with services.database.snapshot() as session:
        row = JobRepository(session, caller.workspace).get(job_id)
        spec = spec_of(row)
        if spec.needs_worker:
            raise Problem("no_search", f"Job {job_id} ({spec.kind}) is no sweep, so it has no trials.")
        assert isinstance(spec, SweepSpec)
        return _document(row, spec, sweeps.trials(session, job_id))


def _document(row: JobRow, spec: SweepSpec, trials: list[sweeps.Trial]) -> Search:
    scored = [trial for trial in trials if trial.score is not None]
    best = min(scored, key=lambda trial: trial.rank, default=None)
    results, lowest = [], None
    for trial in trials:
        if trial.score is not None:
            lowest = trial.score if lowest is None else min(lowest, trial.score)
        results.append(
            TrialResult(
                number=trial.number,
                rung=trial.rung,
                values={axis.name: trial.values[axis.name] for axis in spec.space},
                job=trial.job,
                status=trial.status,
                reason=trial.reason,
                optimizer=trial.optimizer,
                score=trial.score,
                best_so_far=lowest,
                seconds=trial.seconds,
            )
        )
    return Search(
        job=row.id,
        family=row.family,
        status=row.status,
        sampler=spec.sampler if spec.halving is None else f"{spec.sampler} with halving",
        criterion=spec.recipe.criterion,
        total=row.total,
        best=None if best is None else best.number,
        fields=[SweptField(name=axis.name, log=axis.is_logarithmic) for axis in spec.space],
        trials=results,
    )
