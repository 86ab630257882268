"""Users' aliases: names that are moved between the optimizers of a family, and never by two at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Request, Response

from app.api.dependencies import After, CallerDep, Limit, ServicesDep, only_parameters
from app.api.documents import alias_document
from app.api.families import known_family_name
from app.api.schemas import Alias, AliasTarget, Page
from app.http.delivery import NOT_MODIFIED, deliver
from app.http.preconditions import IfMatch, IfNoneMatch, expected
from app.http.problems import FieldError, Problem, invalid_request, responses
from app.jobs.resolve import known_optimizer
from app.openapi import examples
from app.store.aliases import ALIAS_PATTERN, Aliases
from app.store.errors import AliasMoved
from app.store.registry import Registry
from app.store.tables import OptimizerRow

router = APIRouter(tags=["aliases"])

FamilyName = Annotated[str, Depends(known_family_name)]
AliasName = Annotated[str, Path(pattern=ALIAS_PATTERN, description="In lower case, a letter first.")]

_HEADERS: dict[str, Any] = {
    "ETag": {"description": "The alias as it is; send it as `If-Match`.", "schema": {"type": "string"}}
}
_ONE: dict[str, Any] = {"content": {"application/json": {"example": examples.ALIAS}}, "headers": _HEADERS}
_REFUSALS = ("cross_origin", "family_not_found", "precondition_failed", "precondition_required", "alias_reserved",
             "invalid_request", "unsupported_media_type", "body_too_large")  # fmt: skip


@router.get(
    "/families/{name}/aliases",
    operation_id="aliases_list",
    summary="List your aliases of a family, by name",
    description="`latest` and `best` are not among them: they are of every family, and move by themselves.",
    responses={
        200: {
            "content": {"application/json": {"example": {"data": [examples.ALIAS], "has_more": False, "next": None}}}
        },
        **responses("family_not_found", "bad_cursor", "invalid_request"),
    },
    dependencies=[Depends(only_parameters("limit", "after"))],
)
def aliases_list(
    name: FamilyName, services: ServicesDep, caller: CallerDep, limit: Limit = 20, after: After = None
) -> Page[Alias]:
    with services.database.read() as session:
        page = Aliases(session, caller.workspace).page(name, limit, after)
        optimizers = Registry(session, caller.workspace).several([row.optimizer for row in page.rows])
        documents = [alias_document(row, optimizers[row.optimizer]) for row in page.rows]
    return Page[Alias](data=documents, has_more=page.has_more, next=page.next)


@router.get(
    "/families/{name}/aliases/{alias}",
    operation_id="aliases_get",
    summary="One alias, with the ETag that moving it takes",
    response_model=Alias,
    responses={
        200: _ONE,
        304: NOT_MODIFIED,
        **responses("family_not_found", "alias_not_found", "precondition_failed", "invalid_request"),
    },
)
def aliases_get(
    name: FamilyName, alias: AliasName, request: Request, services: ServicesDep, caller: CallerDep
) -> Response:
    with services.database.read() as session:
        row = Aliases(session, caller.workspace).get(name, alias)
        document = alias_document(row, session.get_one(OptimizerRow, row.optimizer))
    content = document.model_dump_json().encode()
    return deliver(request.headers, content, "application/json", cache_control="private, no-cache", etag=document.etag)


@router.put(
    "/families/{name}/aliases/{alias}",
    operation_id="aliases_put",
    summary="Move an alias, or make it",
    description=(
        "With `If-Match`, the ETag of the alias as you saw it, it moves only if nobody moved it meanwhile (else 412); "
        "with `If-None-Match: *` it is made, if there is none (else 412). One of the two is required (else 428). "
        "`latest` and `best` are reserved."
    ),
    response_model=Alias,
    responses={
        200: {"description": "Moved.", **_ONE},
        201: {
            "description": "Made.",
            "model": Alias,
            "content": {"application/json": {"example": examples.ALIAS}},
            "headers": _HEADERS | {"Location": {"schema": {"type": "string"}}},
        },
        **responses("invalid_json", "unknown_optimizer", *_REFUSALS),
    },
)
def aliases_put(
    name: FamilyName,
    alias: AliasName,
    body: Annotated[AliasTarget, Body(openapi_examples={"version": {"value": examples.ALIAS_TARGET}})],
    services: ServicesDep,
    caller: CallerDep,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    condition = expected(if_match, if_none_match)
    with services.database.write() as session, _conflicts_told():
        optimizer = known_optimizer(body.optimizer, Registry(session, caller.workspace))
        if optimizer.family != name:
            raise _of_another_family(name, body.optimizer, optimizer)
        row, made = Aliases(session, caller.workspace).move(name, alias, optimizer, condition)
        document = alias_document(row, optimizer)
    address = f"/families/{name}/aliases/{alias}"
    # Content-Location: the body is what GET would answer now, and the ETag is that answer's.
    headers = {"ETag": document.etag, "Content-Location": address} | ({"Location": address} if made else {})
    return Response(document.model_dump_json(), 201 if made else 200, headers, media_type="application/json")


@router.delete(
    "/families/{name}/aliases/{alias}",
    operation_id="aliases_delete",
    summary="Delete an alias",
    description="The optimizer that it named stays. `If-Match` is required, as for moving it.",
    status_code=204,
    responses={204: {"description": "Deleted."}, **responses("alias_not_found", *_REFUSALS)},
)
def aliases_delete(
    name: FamilyName,
    alias: AliasName,
    services: ServicesDep,
    caller: CallerDep,
    if_match: IfMatch = None,
) -> Response:
    condition = expected(if_match, None)
    with services.database.write() as session, _conflicts_told():
        Aliases(session, caller.workspace).delete(name, alias, condition)
    return Response(status_code=204)


@contextmanager
def _conflicts_told() -> Iterator[None]:
    """412 with what the alias is now, in words, as `optimizer` and as ETag."""
    try:
        yield
    except AliasMoved as error:
        headers = {} if error.tag is None else {"ETag": f'"{error.tag}"'}
        raise Problem("precondition_failed", str(error), headers=headers, optimizer=error.optimizer) from error


def _of_another_family(name: str, reference: str, optimizer: OptimizerRow) -> Problem:
    message = (
        f"{reference!r} is {optimizer.family}@{optimizer.version}, of another family; an alias of {name} names "
        f"optimizers of {name}. GET /optimizers?family={name} lists them"
    )
    return invalid_request([FieldError(location="body", pointer="/optimizer", code="other_family", message=message)])
