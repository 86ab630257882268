"""A family before anything is trained on it: its price, and a curve that a worker draws."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from app.api.dependencies import CallerDep, IdempotencyKey, Services, ServicesDep, only_parameters
from app.api.families import known_family_name
from app.http.fields import Labels, Request, Seed
from app.http.problems import responses
from app.jobs.kinds.previewing import PreviewRequest
from app.jobs.kinds.training import MetaTrainRequest
from app.jobs.overrides import EvaluationPlanOverrides, RecipeOverrides, ResourcesOverrides, TaskOverrides
from app.jobs.pricing import Pricing
from app.jobs.schemas import FamilyPreview, Job
from app.jobs.submission import prepared
from app.openapi import examples
from models.spec import EVALUATION_SEED

router = APIRouter(tags=["families"])


class FamilyPreviewRequest(Request):
    """The training whose price is asked for; all that is left out comes from the family."""

    tasks: TaskOverrides = Field(default_factory=dict)
    seed: Seed = Field(EVALUATION_SEED, description="Which validation tasks are drawn.")
    recipe: RecipeOverrides = Field(default_factory=RecipeOverrides)
    evaluation: EvaluationPlanOverrides = Field(
        default_factory=EvaluationPlanOverrides, description="Of the training's evaluation, whose price is told too."
    )
    resources: ResourcesOverrides = Field(default_factory=ResourcesOverrides)
    metadata: Labels = Field(default_factory=dict, description="Your own labels; GET /jobs filters by them.")


_EXAMPLE: dict[str, Any] = {
    "job": examples.QUEUED_JOB | {"kind": "preview"},
    "picture": f"/jobs/{examples.JOB_ID}/report.png",
    "report": f"/jobs/{examples.JOB_ID}/report",
    "price": examples.PRICE,
}


@router.post(
    "/families/{name}/preview",
    operation_id="families_preview",
    summary="What a training on the family would need, and how tuned Adam does on it",
    description=(
        "Starts a `preview` job, in which a worker times a few steps of a training and its evaluation, tunes Adam on "
        "validation tasks and draws its curve; it takes seconds. The answer has the price from what was measured "
        "before, as POST /jobs with `dry_run=true` tells it; the job's report has the one of its own calibration."
    ),
    status_code=202,
    response_model=FamilyPreview,
    responses={
        202: {
            "description": "Queued. `Location` is the job's address.",
            "content": {"application/json": {"example": _EXAMPLE}},
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **responses(
            "invalid_json", "cross_origin", "family_not_found", "idempotency_in_flight", "body_too_large",
            "unsupported_media_type", "invalid_request", "unknown_family", "data_set_missing", "job_too_large",
            "idempotency_conflict", "quota_exceeded",
        ),
    },
    dependencies=[Depends(only_parameters())],
)  # fmt: skip
async def families_preview(
    name: str,
    body: Annotated[
        FamilyPreviewRequest,
        Body(openapi_examples={"as it is": {"value": {}}, "changed": {"value": examples.PREVIEWED}}),
    ],
    services: ServicesDep,
    caller: CallerDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    await run_in_threadpool(known_family_name, name, services, caller)
    shared = {
        "family": name,
        "tasks": body.tasks,
        "seed": body.seed,
        "recipe": body.recipe,
        "resources": body.resources,
    }
    training = MetaTrainRequest(kind="meta_train", evaluation=body.evaluation, **shared)
    price = await run_in_threadpool(pricing(services).priced, training, caller)
    asked = PreviewRequest(kind="preview", calibrate=True, priced=body.evaluation, metadata=body.metadata, **shared)
    answer = await services.submissions.ask(prepared(asked, caller, services.settings, idempotency_key))
    services.dispatcher.wake()
    job = Job.model_validate_json(answer.body)
    told = FamilyPreview(job=job, picture=f"/jobs/{job.id}/report.png", report=f"/jobs/{job.id}/report", price=price)
    headers = answer.headers | ({"Idempotent-Replayed": "true"} if answer.replayed else {})
    return Response(told.model_dump_json(), answer.status_code, headers, media_type="application/json")


def pricing(services: Services) -> Pricing:
    return Pricing(services.settings, services.database, services.dispatcher)
