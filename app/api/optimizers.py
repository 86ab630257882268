"""Trained optimizers: the weights first of all, and what is known about them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.orm import Session

from app.api import examples
from app.api.delivery import deliver
from app.api.dependencies import Accept, After, CallerDep, Limit, ServicesDep, only_parameters
from app.api.documents import card_facts, not_ready, optimizer_document
from app.api.negotiation import chosen
from app.api.schemas import Name, Optimizer, Page
from app.auth import Caller
from app.errors import responses
from app.report.card import card_markdown
from app.store.errors import OptimizerNotFound
from app.store.jobs import JobRepository
from app.store.registry import Registry, is_reference
from app.store.tables import OptimizerRow

router = APIRouter(tags=["optimizers"])

SAFETENSORS, JSON, MARKDOWN = "application/vnd.safetensors", "application/json", "text/markdown"
FOREVER = "private, max-age=31536000, immutable"
MOVING_ALIASES = ("latest", "best")


@router.get(
    "/optimizers",
    operation_id="optimizers_list",
    summary="List optimizers, newest first",
    responses={
        200: {
            "content": {
                "application/json": {"example": {"data": [examples.OPTIMIZER], "has_more": False, "next": None}}
            }
        },
        **responses("bad_cursor", "invalid_request"),
    },
    dependencies=[Depends(only_parameters("family", "limit", "after"))],
)
def optimizers_list(
    services: ServicesDep,
    caller: CallerDep,
    family: Annotated[Name | None, Query()] = None,
    limit: Limit = 20,
    after: After = None,
) -> Page[Optimizer]:
    with services.database.read() as session:
        registry = Registry(session, caller.workspace)
        page = registry.page(family=family, limit=limit, after=after)
        documents = [optimizer_document(registry, row) for row in page.rows]
    return Page[Optimizer](data=documents, has_more=page.has_more, next=page.next)


@router.get(
    "/optimizers/{reference}",
    operation_id="optimizers_get",
    summary="The weights as safetensors bytes; the record with `Accept: application/json`",
    description=(
        "`reference` is an id, `<family>@<version>`, `<family>@latest` or `<family>@best` (the lowest validation "
        "score). Weights by id or version never change and may be cached for ever; aliases move, so they are "
        "revalidated, and `Content-Location` says which optimizer it is. Parts by `Range`."
    ),
    response_class=Response,
    responses={
        200: {
            "content": {
                SAFETENSORS: {"schema": {"type": "string", "format": "binary"}},
                JSON: {
                    "schema": {"$ref": "#/components/schemas/Optimizer"},
                    "example": examples.OPTIMIZER,
                },
            },
            "headers": {
                name: {"schema": {"type": "string"}}
                for name in ("ETag", "Cache-Control", "Content-Location", "Accept-Ranges", "Vary")
            },
        },
        206: {"description": "The bytes asked for by `Range`."},
        304: {"description": "The caller has it already (`If-None-Match`)."},
        **responses("optimizer_not_found", "not_acceptable", "not_ready", "range_not_satisfiable"),
    },
)
def optimizers_get(
    reference: str, request: Request, services: ServicesDep, caller: CallerDep, accept: Accept = None
) -> Response:
    wanted = chosen(accept, (SAFETENSORS, JSON))
    with services.database.read() as session:
        row = _resolved(session, caller, reference)
        registry = Registry(session, caller.workspace)
        content = (
            registry.weights(row)
            if wanted == SAFETENSORS
            else optimizer_document(registry, row).model_dump_json().encode()
        )
    headers = {"Content-Location": f"/optimizers/{row.id}"}
    if wanted == JSON:
        return deliver(request.headers, content, JSON, cache_control="private, no-cache", headers=headers)
    headers["Content-Disposition"] = f'attachment; filename="{row.family}@{row.version}.safetensors"'
    moves = reference.rpartition("@")[2] in MOVING_ALIASES
    return deliver(
        request.headers,
        content,
        SAFETENSORS,
        cache_control="private, no-cache" if moves else FOREVER,
        etag=f'"sha256:{row.sha256}"',
        headers=headers,
        ranges=True,
    )


@router.get(
    "/optimizers/{reference}/card",
    operation_id="optimizers_card",
    summary="The model card, in Markdown",
    response_class=Response,
    responses={
        200: {"content": {MARKDOWN: {"schema": {"type": "string"}, "example": "# quadratic@1\n"}}},
        304: {"description": "The caller has it already."},
        **responses("optimizer_not_found", "not_acceptable", "not_ready"),
    },
)
def optimizers_card(
    reference: str, request: Request, services: ServicesDep, caller: CallerDep, accept: Accept = None
) -> Response:
    offered = chosen(accept, (MARKDOWN, "text/plain"))
    with services.database.read() as session:
        row = _resolved(session, caller, reference)
        text = card_markdown(card_facts(session, row))
    return deliver(
        request.headers,
        text.encode(),
        f"{offered}; charset=utf-8",
        cache_control="private, no-cache",
        headers={"Content-Location": f"/optimizers/{row.id}/card"},
    )


def _resolved(session: Session, caller: Caller, reference: str) -> OptimizerRow:
    """Raises OptimizerNotFound, or Problem `not_ready` where a running job is about to make what was asked for."""
    if not is_reference(reference):
        raise OptimizerNotFound(reference, "Optimizers are named opt_... or <family>@<version, latest or best>.")
    registry = Registry(session, caller.workspace)
    try:
        return registry.resolve(reference)
    except OptimizerNotFound:
        family, separator, name = reference.partition("@")
        job = JobRepository(session, caller.workspace).newest_unfinished(family) if separator else None
        if job is not None and (name in MOVING_ALIASES or name == str(_next_version(registry, family))):
            raise not_ready(job, f"optimizer {reference}") from None
        raise


def _next_version(registry: Registry, family: str) -> int:
    try:
        return registry.resolve(f"{family}@latest").version + 1
    except OptimizerNotFound:
        return 1
