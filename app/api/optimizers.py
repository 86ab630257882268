"""Trained optimizers: the weights first of all, and what is known about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.api.dependencies import Accept, After, CallerDep, Limit, Services, ServicesDep, only_parameters
from app.api.documents import card_facts, optimizer_documents
from app.api.file_card import file_card
from app.api.schemas import Optimizer, Page
from app.auth import Caller
from app.http.delivery import NOT_MODIFIED, deliver
from app.http.fields import MAX_LABELS, Name, Tag
from app.http.negotiation import chosen
from app.http.problems import Problem, responses
from app.jobs.documents import not_ready
from app.openapi import examples
from app.report.card import card_markdown
from app.store.aliases import ALIAS_PATTERN, RESERVED
from app.store.errors import OptimizerNotFound
from app.store.jobs import JobRepository
from app.store.references import REFERENCE_FORMS, Located, is_reference, is_version
from app.store.registry import Registry
from app.store.sessions import Database
from app.store.tables import OptimizerRow
from gradsmith.rules.weights_file import with_card

router = APIRouter(tags=["optimizers"])

SAFETENSORS, JSON, MARKDOWN = "application/vnd.safetensors", "application/json", "text/markdown"
FOREVER = "private, max-age=31536000, immutable"
_WEIGHTS_HEADERS = {
    name: {"schema": {"type": "string"}} for name in ("ETag", "Cache-Control", "Content-Location", "Accept-Ranges")
}


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
    dependencies=[Depends(only_parameters("family", "alias", "tag", "archived", "limit", "after", several=("tag",)))],
)
def optimizers_list(
    services: ServicesDep,
    caller: CallerDep,
    family: Annotated[Name | None, Query()] = None,
    alias: Annotated[str | None, Query(pattern=ALIAS_PATTERN)] = None,
    tag: Annotated[list[Tag] | None, Query(max_length=MAX_LABELS, description="`key=value`, or `key`.")] = None,
    archived: Annotated[bool, Query(description="Also those that were archived.")] = False,
    limit: Limit = 20,
    after: After = None,
) -> Page[Optimizer]:
    tags = [_key_and_value(text) for text in tag or ()]
    with services.database.read() as session:
        registry = Registry(session, caller.workspace)
        page = registry.page(family=family, alias=alias, tags=tags, archived=archived, limit=limit, after=after)
        documents = optimizer_documents(session, caller.workspace, page.rows)
    return Page[Optimizer](data=documents, has_more=page.has_more, next=page.next)


@router.get(
    "/optimizers/{reference}",
    operation_id="optimizers_get",
    summary="The weights as safetensors bytes; the record with `Accept: application/json`",
    description=(
        "`reference` is an id, `<family>@<version>`, `<family>@latest`, `<family>@best` (the lowest validation "
        "score) or an alias of yours. Weights by id or version never change and may be cached for ever; aliases move, "
        "so they are revalidated, and `Content-Location` says which optimizer it is. Parts by `Range`. Both "
        "representations have addresses of their own too: `/weights` and `/record`."
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
            "headers": _WEIGHTS_HEADERS | {"Vary": {"schema": {"type": "string"}}},
        },
        206: {"description": "The bytes asked for by `Range`."},
        304: NOT_MODIFIED,
        **responses(
            "optimizer_not_found",
            "not_acceptable",
            "not_ready",
            "precondition_failed",
            "range_not_satisfiable",
            "damaged_data",
        ),
    },
)
async def optimizers_get(
    reference: str, request: Request, services: ServicesDep, caller: CallerDep, accept: Accept = None
) -> Response:
    if chosen(accept, (SAFETENSORS, JSON)) == JSON:
        return await run_in_threadpool(_record, request, services, caller, reference)
    return await _weights(request, services, caller, reference)


@router.get(
    "/optimizers/{reference}/weights",
    operation_id="optimizers_weights",
    summary="The weights as safetensors bytes, whatever `Accept` says",
    response_class=Response,
    responses={
        200: {
            "content": {SAFETENSORS: {"schema": {"type": "string", "format": "binary"}}},
            "headers": _WEIGHTS_HEADERS,
        },
        206: {"description": "The bytes asked for by `Range`."},
        304: NOT_MODIFIED,
        **responses("optimizer_not_found", "not_ready", "precondition_failed", "range_not_satisfiable", "damaged_data"),
    },
)
async def optimizers_weights(reference: str, request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    return await _weights(request, services, caller, reference, "/weights")


@router.get(
    "/optimizers/{reference}/record",
    operation_id="optimizers_record",
    summary="The record as JSON, whatever `Accept` says: its hash, scores, labels and aliases",
    response_class=Response,
    responses={
        200: {"content": {JSON: {"schema": {"$ref": "#/components/schemas/Optimizer"}, "example": examples.OPTIMIZER}}},
        304: NOT_MODIFIED,
        **responses("optimizer_not_found", "not_ready", "precondition_failed"),
    },
)
def optimizers_record(reference: str, request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    return _record(request, services, caller, reference, "/record")


@router.get(
    "/optimizers/{reference}/file",
    operation_id="optimizers_file",
    summary="The weights with their card in one safetensors file",
    description=(
        "What users keep, and what POST /optimizers takes on another server: the tensors are those of `/weights`, and "
        "the header's metadata also has the card: family, horizon, criterion, verdicts. It changes with what is known."
    ),
    response_class=Response,
    responses={
        200: {
            "content": {SAFETENSORS: {"schema": {"type": "string", "format": "binary"}}},
            "headers": _WEIGHTS_HEADERS,
        },
        304: NOT_MODIFIED,
        **responses("optimizer_not_found", "not_ready", "precondition_failed", "damaged_data"),
    },
)
def optimizers_file(reference: str, request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    with services.database.read() as session:
        registry = Registry(session, caller.workspace)
        row = session.get_one(OptimizerRow, locate(session, caller.workspace, reference).id)
        [document] = optimizer_documents(session, caller.workspace, [row])
        content = with_card(registry.weights(row), file_card(document, registry.made_with(row)))
    name = f"{row.family}@{row.version}.safetensors"
    headers = {
        "Content-Location": f"/optimizers/{row.id}/file",
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    return deliver(
        request.headers,
        content,
        SAFETENSORS,
        cache_control="private, no-cache",
        headers=headers,
        negotiated=False,
    )


def located(database: Database, asked: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Located | Exception]:
    """Where the optimizers are that are asked for, each as (workspace, reference); or why one cannot be had."""
    found: dict[tuple[str, str], Located | Exception] = {}
    # the weights never change, so they need no transaction with their place
    with database.autocommit_read() as session:
        for workspace, reference in asked:
            try:
                found[workspace, reference] = locate(session, workspace, reference)
            except (OptimizerNotFound, Problem) as error:
                found[workspace, reference] = error
    return found


# `address`: what stands behind the reference in the path; "" where `Accept` chose between the representations


def _record(request: Request, services: Services, caller: Caller, reference: str, address: str = "") -> Response:
    with services.database.read() as session:
        row = session.get_one(OptimizerRow, locate(session, caller.workspace, reference).id)
        content = optimizer_documents(session, caller.workspace, [row])[0].model_dump_json().encode()
    headers = {"Content-Location": f"/optimizers/{row.id}{address}"}
    return deliver(
        request.headers, content, JSON, cache_control="private, no-cache", headers=headers, negotiated=not address
    )


async def _weights(request: Request, services: Services, caller: Caller, reference: str, address: str = "") -> Response:
    found = await services.downloads.ask((caller.workspace, reference))
    if services.weights.holds(found.sha256):
        return _download(request, services, caller, found, reference, address)
    return await run_in_threadpool(_download, request, services, caller, found, reference, address)


def _download(
    request: Request, services: Services, caller: Caller, found: Located, reference: str, address: str
) -> Response:
    def read() -> bytes:
        with services.database.autocommit_read() as session:
            return Registry(session, caller.workspace).weights(found)

    _, separator, name = reference.partition("@")
    return deliver(
        request.headers,
        lambda: services.weights.get(found.sha256, read),
        SAFETENSORS,
        cache_control="private, no-cache" if separator and not is_version(name) else FOREVER,
        etag=f'"sha256:{found.sha256}"',
        headers={
            "Content-Location": f"/optimizers/{found.id}{address}",
            "Content-Disposition": f'attachment; filename="{found.family}@{found.version}.safetensors"',
        },
        ranges=True,
        negotiated=not address,
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
    return _card(request, services, caller, reference, chosen(accept, (MARKDOWN, "text/plain")), "card")


def _card_has_an_address(form: str, media_type: str) -> None:
    """GET /optimizers/{reference}/card.<form>: the card as one media type, whatever `Accept` says."""

    def one_form(reference: str, request: Request, services: ServicesDep, caller: CallerDep) -> Response:
        return _card(request, services, caller, reference, media_type, f"card.{form}", negotiated=False)

    router.add_api_route(
        f"/optimizers/{{reference}}/card.{form}",
        one_form,
        operation_id=f"optimizers_card_{form}",
        summary=f"The model card as `{media_type}`, whatever `Accept` says",
        response_class=Response,
        responses={
            200: {"content": {media_type: {"schema": {"type": "string"}, "example": "# quadratic@1\n"}}},
            304: NOT_MODIFIED,
            **responses("optimizer_not_found", "not_ready", "precondition_failed"),
        },
    )


_card_has_an_address("md", MARKDOWN)
_card_has_an_address("txt", "text/plain")


def _card(
    request: Request,
    services: Services,
    caller: Caller,
    reference: str,
    media_type: str,
    address: str,
    *,
    negotiated: bool = True,
) -> Response:
    with services.database.read() as session:
        row = session.get_one(OptimizerRow, locate(session, caller.workspace, reference).id)
        text = card_markdown(card_facts(session, row))
    return deliver(
        request.headers,
        text.encode(),
        f"{media_type}; charset=utf-8",
        cache_control="private, no-cache",
        headers={"Content-Location": f"/optimizers/{row.id}/{address}"},
        negotiated=negotiated,
    )


def _key_and_value(tag: str) -> tuple[str, str | None]:
    key, separator, value = tag.partition("=")
    return key, value if separator else None


def locate(session: Session, workspace: str, reference: str) -> Located:
    """Raises OptimizerNotFound, or Problem `not_ready` where a running job is about to make what was asked for."""
    if not is_reference(reference):
        raise OptimizerNotFound(reference, REFERENCE_FORMS)
    registry = Registry(session, workspace)
    try:
        return registry.locate(reference)
    except OptimizerNotFound:
        family, separator, name = reference.partition("@")
        job = JobRepository(session, workspace).newest_unfinished(family) if separator else None
        if job is not None and (name in RESERVED or name == str(registry.next_version(family))):
            raise not_ready(job, f"optimizer {reference}") from None
        raise
