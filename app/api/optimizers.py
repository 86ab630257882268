"""Trained optimizers: the weights first of all, and what is known about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.api import examples
from app.api.delivery import NOT_MODIFIED, deliver
from app.api.dependencies import Accept, After, CallerDep, Limit, Services, ServicesDep, only_parameters
from app.api.documents import card_facts, not_ready, optimizer_documents
from app.api.negotiation import chosen
from app.api.schemas import MAX_LABELS, Name, Optimizer, Page, Tag
from app.auth import Caller
from app.errors import Problem, responses
from app.report.card import card_markdown
from app.store.aliases import ALIAS_PATTERN, RESERVED
from app.store.errors import OptimizerNotFound
from app.store.jobs import JobRepository
from app.store.references import REFERENCE_FORMS, Located, is_reference, is_version
from app.store.registry import Registry
from app.store.sessions import Database
from app.store.tables import OptimizerRow

router = APIRouter(tags=["optimizers"])

SAFETENSORS, JSON, MARKDOWN = "application/vnd.safetensors", "application/json", "text/markdown"
FOREVER = "private, max-age=31536000, immutable"


@router.get(
    "/optimizers",
    operation_id="optimizers_list",
    summary="List optimizers, newest first",
    description=(
        "`alias` finds what it names now: `alias=prod` in every family, one with `family`; `latest` and `best` too. "
        f"`tag=key=value`, or `tag=key` with any value, finds by the labels (`metadata`) of the job that made it; up "
        f"to {MAX_LABELS} of them, which all must be there."
    ),
    responses={
        200: {
            "content": {
                "application/json": {"example": {"data": [examples.OPTIMIZER], "has_more": False, "next": None}}
            }
        },
        **responses("bad_cursor", "invalid_request"),
    },
    dependencies=[Depends(only_parameters("family", "alias", "tag", "limit", "after", several=("tag",)))],
)
def optimizers_list(
    services: ServicesDep,
    caller: CallerDep,
    family: Annotated[Name | None, Query()] = None,
    alias: Annotated[str | None, Query(pattern=ALIAS_PATTERN)] = None,
    tag: Annotated[list[Tag] | None, Query(max_length=MAX_LABELS, description="`key=value`, or `key`.")] = None,
    limit: Limit = 20,
    after: After = None,
) -> Page[Optimizer]:
    tags = [_key_and_value(text) for text in tag or ()]
    with services.database.read() as session:
        registry = Registry(session, caller.workspace)
        page = registry.page(family=family, alias=alias, tags=tags, limit=limit, after=after)
        documents = optimizer_documents(session, caller.workspace, page.rows)
    return Page[Optimizer](data=documents, has_more=page.has_more, next=page.next)


@router.get(
    "/optimizers/{reference}",
    operation_id="optimizers_get",
    summary="The weights as safetensors bytes; the record with `Accept: application/json`",
    description=(
        "`reference` is an id, `<family>@<version>`, `<family>@latest`, `<family>@best` (the lowest validation "
        "score) or an alias of yours. Weights by id or version never change and may be cached for ever; aliases move, "
        "so they are revalidated, and `Content-Location` says which optimizer it is. Parts by `Range`."
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
        304: NOT_MODIFIED,
        **responses(
            "optimizer_not_found", "not_acceptable", "not_ready", "precondition_failed", "range_not_satisfiable"
        ),
    },
)
async def optimizers_get(
    reference: str, request: Request, services: ServicesDep, caller: CallerDep, accept: Accept = None
) -> Response:
    if chosen(accept, (SAFETENSORS, JSON)) == JSON:
        return await run_in_threadpool(_record, request, services, caller, reference)
    found = await services.downloads.ask((caller.workspace, reference))
    if services.weights.holds(found.sha256):
        return _download(request, services, caller, found, reference)
    return await run_in_threadpool(_download, request, services, caller, found, reference)


def located(database: Database, asked: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Located | Exception]:
    """Where the optimizers are that are asked for, each as (workspace, reference); or why one cannot be had."""
    found: dict[tuple[str, str], Located | Exception] = {}
    # the weights never change, so they need no transaction with their place
    with database.glance() as session:
        for workspace, reference in asked:
            try:
                found[workspace, reference] = _located(session, workspace, reference)
            except (OptimizerNotFound, Problem) as error:
                found[workspace, reference] = error
    return found


def _record(request: Request, services: Services, caller: Caller, reference: str) -> Response:
    with services.database.read() as session:
        row = session.get_one(OptimizerRow, _located(session, caller.workspace, reference).id)
        content = optimizer_documents(session, caller.workspace, [row])[0].model_dump_json().encode()
    headers = {"Content-Location": f"/optimizers/{row.id}"}
    return deliver(request.headers, content, JSON, cache_control="private, no-cache", headers=headers)


def _download(request: Request, services: Services, caller: Caller, found: Located, reference: str) -> Response:
    def read() -> bytes:
        with services.database.glance() as session:
            return Registry(session, caller.workspace).weights(found)

    _, separator, name = reference.partition("@")
    return deliver(
        request.headers,
        lambda: services.weights.get(found.sha256, read),
        SAFETENSORS,
        cache_control="private, no-cache" if separator and not is_version(name) else FOREVER,
        etag=f'"sha256:{found.sha256}"',
        headers={
            "Content-Location": f"/optimizers/{found.id}",
            "Content-Disposition": f'attachment; filename="{found.family}@{found.version}.safetensors"',
        },
        ranges=True,
    )


@router.get(
    "/optimizers/{reference}/card",
    operation_id="optimizers_card",
    summary="The model card, in Markdown",
    response_class=Response,
    responses={
        200: {"content": {MARKDOWN: {"schema": {"type": "string"}, "example": "# quadratic@1\n"}}},
        304: NOT_MODIFIED,
        **responses("optimizer_not_found", "not_acceptable", "not_ready", "precondition_failed"),
    },
)
def optimizers_card(
    reference: str, request: Request, services: ServicesDep, caller: CallerDep, accept: Accept = None
) -> Response:
    offered = chosen(accept, (MARKDOWN, "text/plain"))
    with services.database.read() as session:
        row = session.get_one(OptimizerRow, _located(session, caller.workspace, reference).id)
        text = card_markdown(card_facts(session, row))
    return deliver(
        request.headers,
        text.encode(),
        f"{offered}; charset=utf-8",
        cache_control="private, no-cache",
        headers={"Content-Location": f"/optimizers/{row.id}/card"},
    )


def _key_and_value(tag: str) -> tuple[str, str | None]:
    key, separator, value = tag.partition("=")
    return key, value if separator else None


def _located(session: Session, workspace: str, reference: str) -> Located:
    """Raises OptimizerNotFound, or Problem `not_ready` where a running job is about to make what was asked for."""
    if not is_reference(reference):
        raise OptimizerNotFound(reference, REFERENCE_FORMS)
    registry = Registry(session, workspace)
    try:
        return registry.locate(reference)
    except OptimizerNotFound:
        family, separator, name = reference.partition("@")
        job = JobRepository(session, workspace).newest_unfinished(family) if separator else None
        if job is not None and (name in RESERVED or name == str(_next_version(registry, family))):
            raise not_ready(job, f"optimizer {reference}") from None
        raise


def _next_version(registry: Registry, family: str) -> int:
    try:
        return registry.locate(f"{family}@latest").version + 1
    except OptimizerNotFound:
        return 1
