"""Tables that users bring."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.api.dependencies import CallerDep, Services, ServicesDep, only_parameters
from app.api.schemas import Dataset, Datasets
from app.http.delivery import NOT_MODIFIED, deliver
from app.http.problems import FieldError, Problem, invalid_request, responses
from app.http.received import received
from app.http.uploads import FILE_BODY
from app.openapi.examples import DATASET
from app.store import datasets as store
from app.store.families import FAMILY_NAME_PATTERN
from app.store.tables import DatasetRow
from models.datasets.arrival import Arrival
from models.datasets.blobs import Blobs, blobs_of
from models.datasets.inspection import inspected
from models.datasets.source import Limits
from models.errors import DatasetRefused
from models.families import DATASETS as BUILT_IN

router = APIRouter(tags=["datasets"])

_ONE: dict[str, Any] = {"content": {"application/json": {"example": DATASET}}}
_ALL: dict[str, Any] = {
    "content": {"application/json": {"example": {"data": [DATASET], "has_more": False, "next": None}}}
}
_Column = Annotated[str, Query(min_length=1, max_length=100)]


@router.post(
    "/datasets",
    operation_id="datasets_create",
    summary="Bring a table",
    description=(
        "The body is a file: CSV (UTF-8, with a line of names), npz (an array a column; nothing is unpickled) or "
        "safetensors. It is read as it comes, checked, and kept whole or not at all. `group` names the column that "
        "says which rows belong to which task, such as a customer: a family on it is a distribution over groups. A "
        "data set never changes: the same request again answers 200, another one with that name 409."
    ),
    status_code=201,
    response_model=Dataset,
    openapi_extra={"requestBody": FILE_BODY},
    responses={
        200: {"description": "Brought before, as it is.", "model": Dataset, **_ONE},
        201: {
            "description": "Kept. `Location` is the data set's address.",
            **_ONE,
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **responses(
            "cross_origin", "too_slow", "body_too_large", "unsupported_media_type", "invalid_request",
            "dataset_refused", "dataset_exists", "too_many_datasets",
        ),
    },
    dependencies=[Depends(only_parameters("name", "target", "group", "input", "sha256", several={"input"}))],
)  # fmt: skip
async def datasets_create(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    name: Annotated[str, Query(pattern=FAMILY_NAME_PATTERN, description="What families call it.")],
    target: Annotated[_Column | None, Query(description="The column that is predicted.")] = None,
    group: Annotated[_Column | None, Query(description="The column that says which rows belong to which task.")] = None,
    input: Annotated[  # noqa: A002 - its name in the query
        list[_Column] | None,
        Query(max_length=1000, description="Columns that a model sees; default: all other numbers."),
    ] = None,
    sha256: Annotated[
        str | None, Query(pattern="^[0-9a-f]{64}$", description="Of the file; other bytes are refused.")
    ] = None,
) -> Response:
    if name in BUILT_IN:
        message = f"{name!r} is a data set of the server's own; choose another name"
        raise invalid_request([FieldError(location="query", pointer="/name", code="taken", message=message)])
    settings = services.settings
    limits = Limits(settings.dataset_rows, settings.dataset_columns, settings.dataset_unpacked_bytes)
    blobs = blobs_of(settings.data_dir)
    try:
        with blobs.arriving() as arrival:
            await received(
                request,
                arrival.write,
                limit_bytes=settings.dataset_limit_bytes,
                timeout_seconds=settings.body_timeout_seconds,
            )
            if sha256 is not None and arrival.sha256 != sha256:
                raise DatasetRefused(f"The file arrived damaged: its SHA-256 is {arrival.sha256}. Send it again.")
            roles = {"inputs": input or (), "target": target, "group": group}
            kept = await run_in_threadpool(_kept, services, blobs, arrival, name, caller.workspace, roles, limits)
    except ClientDisconnect:
        return Response(status_code=400)  # which nobody reads; what came of the file has been removed
    except OSError as error:
        raise Problem("store_unavailable", f"The data folder cannot take the file: {error.strerror}.") from error
    headers = {"Location": f"/datasets/{name}"} if kept.made else {}
    content = _document(kept.row).model_dump_json()
    return Response(content, 201 if kept.made else 200, headers, media_type="application/json")


def _kept(
    services: Services,
    blobs: Blobs,
    arrival: Arrival,
    name: str,
    workspace: str,
    roles: dict[str, Any],
    limits: Limits,
) -> store.Kept:
    arrival.flush()
    found = inspected(arrival.path, called=name, limits=limits, **roles)
    return store.keep(services.database, blobs, arrival, found, name, workspace)


@router.get(
    "/datasets",
    operation_id="datasets_list",
    summary="List the tables that were brought",
    response_model=Datasets,
    responses={200: _ALL, 304: NOT_MODIFIED, **responses("invalid_request", "precondition_failed")},
    dependencies=[Depends(only_parameters())],
)
def datasets_list(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    with services.database.read() as session:
        rows = store.Datasets(session, caller.workspace).rows()
        found = Datasets(data=[_document(row) for row in rows], has_more=False, next=None)
    content = found.model_dump_json().encode()
    return deliver(request.headers, content, "application/json", cache_control="private, no-cache")


@router.get(
    "/datasets/{dataset}",
    operation_id="datasets_get",
    summary="One table: its columns, classes and groups, and its first rows",
    response_model=Dataset,
    responses={200: _ONE, 304: NOT_MODIFIED, **responses("dataset_not_found", "precondition_failed")},
)
def datasets_get(dataset: str, request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    with services.database.read() as session:
        content = _document(store.Datasets(session, caller.workspace).get(dataset)).model_dump_json().encode()
    return deliver(request.headers, content, "application/json", cache_control="private, no-cache")


@router.delete(
    "/datasets/{dataset}",
    operation_id="datasets_delete",
    summary="Delete a table that no family needs",
    status_code=204,
    response_class=Response,
    responses={204: {"description": "Deleted."}, **responses("cross_origin", "dataset_not_found", "dataset_needed")},
)
def datasets_delete(dataset: str, services: ServicesDep, caller: CallerDep) -> None:
    store.forget(services.database, blobs_of(services.settings.data_dir), dataset, caller.workspace)


def _document(row: DatasetRow) -> Dataset:
    return Dataset(name=row.name, sha256=row.sha256, size_bytes=row.size, created_at=row.created_at, **row.inspection)
