"""Bringing optimizers from elsewhere, describing them, putting them away, and deleting them."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.api.dependencies import CallerDep, Services, ServicesDep, only_parameters
from app.api.documents import optimizer_documents
from app.api.optimizers import locate
from app.api.schemas import Optimizer, OptimizerChange
from app.auth import Caller
from app.http.fields import Description, Name
from app.http.problems import Problem, responses
from app.http.received import received
from app.http.uploads import FILE_BODY
from app.jobs.uploading import elsewhere
from app.openapi import examples
from app.store.curation import Curation
from app.store.families import DeclaredFamilies
from app.store.registry import Registry
from app.store.sessions import now
from gradsmith.errors import WeightsError
from gradsmith.rules.weights_file import checked

router = APIRouter(tags=["optimizers"])

_ONE: dict[str, Any] = {"content": {"application/json": {"example": examples.OPTIMIZER}}}


@router.post(
    "/optimizers",
    operation_id="optimizers_create",
    summary="Bring an optimizer from elsewhere",
    description=(
        "The body is a weights file: of another server (`/optimizers/{reference}/file` there has its card too), or one "
        "that `gradsmith.rules.weights.dumps` wrote. It is checked as it is, without being run, and kept whole or not "
        "at all. `latest` and `best` pass over it until a job has evaluated it here. The same file again answers 200."
    ),
    status_code=201,
    response_model=Optimizer,
    openapi_extra={"requestBody": FILE_BODY},
    responses={
        200: {"description": "Brought before, as it is.", "model": Optimizer, **_ONE},
        201: {
            "description": "Kept. `Location` is the optimizer's address.",
            **_ONE,
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **responses(
            "cross_origin", "too_slow", "body_too_large", "unsupported_media_type", "invalid_request",
            "optimizer_refused", "unknown_family",
        ),
    },
    dependencies=[Depends(only_parameters("family", "source", "description", "sha256"))],
)  # fmt: skip
async def optimizers_create(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    family: Annotated[Name | None, Query(description="Default: the one that the file names.")] = None,
    source: Annotated[Name | None, Query(description="Where it comes from, in your words.")] = None,
    description: Annotated[Description, Query(description="What it is, in your words.")] = "",
    sha256: Annotated[
        str | None, Query(pattern="^[0-9a-f]{64}$", description="Of the file; other bytes are refused.")
    ] = None,
) -> Response:
    settings, content = services.settings, bytearray()
    try:
        await received(
            request,
            content.extend,
            limit_bytes=settings.optimizer_limit_bytes,
            timeout_seconds=settings.body_timeout_seconds,
        )
    except ClientDisconnect:
        return Response(status_code=400)  # which nobody reads
    said = {"source": source, "sha256": sha256}
    return await run_in_threadpool(_kept, services, caller, bytes(content), family, description, said)


def _kept(
    services: Services,
    caller: Caller,
    content: bytes,
    family: str | None,
    description: str,
    said: dict[str, str | None],
) -> Response:
    arrived = hashlib.sha256(content).hexdigest()
    if said["sha256"] not in (None, arrived):
        raise Problem("optimizer_refused", f"The file arrived damaged: its SHA-256 is {arrived}. Send it again.")
    try:
        file = checked(content)
    except WeightsError as error:
        raise Problem("optimizer_refused", f"The weights file cannot be used: {error}.") from error
    with services.database.write() as session:
        found = elsewhere(file, family, DeclaredFamilies(session, caller.workspace))
        uploaded = {
            "by": caller.api_key,
            "at": now(session).isoformat(),
            "source": said["source"],
            "file_sha256": arrived,
            "claims": found.claims,
            "made_with": found.made_with,
        }
        registry = Registry(session, caller.workspace)
        row, made = registry.upload(found.family, file.content, found.card, uploaded, description=description)
        [document] = optimizer_documents(session, caller.workspace, [row])
    headers = {"Location": f"/optimizers/{row.id}"} if made else {}
    return Response(document.model_dump_json(), 201 if made else 200, headers, media_type="application/json")


@router.patch(
    "/optimizers/{reference}",
    operation_id="optimizers_change",
    summary="Describe an optimizer, or archive it",
    description=(
        "Lists, `latest` and `best` pass over an archived optimizer; its id, its version and your aliases still name "
        "it. Its weights never change."
    ),
    response_model=Optimizer,
    responses={
        200: _ONE,
        **responses(
            "cross_origin", "invalid_json", "invalid_request", "unsupported_media_type", "body_too_large", "too_slow",
            "optimizer_not_found", "not_ready",
        ),
    },
)  # fmt: skip
def optimizers_change(
    reference: str,
    body: Annotated[OptimizerChange, Body(openapi_examples={"archive": {"value": {"archived": True}}})],
    services: ServicesDep,
    caller: CallerDep,
) -> Optimizer:
    with services.database.write() as session:
        found = locate(session, caller.workspace, reference)
        curation = Curation(session, caller.workspace)
        row = curation.change(found.id, description=body.description, archived=body.archived)
        [document] = optimizer_documents(session, caller.workspace, [row])
    return document


@router.delete(
    "/optimizers/{reference}",
    operation_id="optimizers_delete",
    summary="Delete an optimizer that nothing needs",
    description="Its version is never given again. One that an alias, a job or an evaluation needs can be archived.",
    status_code=204,
    response_class=Response,
    responses={
        204: {"description": "Deleted."},
        **responses("cross_origin", "optimizer_not_found", "not_ready", "optimizer_needed"),
    },
)
def optimizers_delete(reference: str, services: ServicesDep, caller: CallerDep) -> None:
    with services.database.write() as session:
        found = locate(session, caller.workspace, reference)
        Curation(session, caller.workspace).delete(found.id)
