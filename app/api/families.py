"""What can be trained on."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request, Response
from pydantic import BaseModel, ValidationError

from app.api.dependencies import CallerDep, Services, ServicesDep, only_parameters
from app.api.schemas import Families, Family, FamilyDetail, PluginProblem
from app.auth.caller import Caller
from app.http.delivery import NOT_MODIFIED, deliver
from app.http.problems import Problem, responses
from app.jobs.declaring import FamilyRequest, declared_family
from app.jobs.resolve import found_family, no_such_family
from app.openapi.examples import FAMILY, FAMILY_REQUEST
from app.store.datasets import Datasets
from app.store.errors import DatasetNotFound
from app.store.families import DeclaredFamilies
from app.store.tables import FamilyRow
from models.families import FAMILIES, PROBLEMS
from models.spec import FamilySpec

router = APIRouter(tags=["families"])

_DETAIL: dict[str, Any] = FAMILY | {"schemas": {"tasks": {"type": "object"}}}
_ONE: dict[str, Any] = {"content": {"application/json": {"example": _DETAIL}}}
_EXAMPLE = {"data": [FAMILY], "has_more": False, "next": None, "problems": []}


@router.get(
    "/families",
    operation_id="families_list",
    summary="List the families that a rule can be trained on",
    response_model=Families,
    responses={
        200: {"content": {"application/json": {"example": _EXAMPLE}}},
        304: NOT_MODIFIED,
        **responses("invalid_request", "precondition_failed"),
    },
    dependencies=[Depends(only_parameters())],
)
def families_list(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    families = [Family(**_fields(family)) for family in FAMILIES.values()]
    problems = [PluginProblem(**vars(problem)) for problem in PROBLEMS]
    with services.database.read() as session:
        for row in DeclaredFamilies(session, caller.workspace).rows():
            found = _readable(row)
            if isinstance(found, PluginProblem):
                problems.append(found)
            else:
                families.append(Family(**_fields(found, declared=True)))
    return _delivered(request, Families(data=families, has_more=False, next=None, problems=problems))


@router.get(
    "/families/{name}",
    operation_id="families_get",
    summary="One family, its recipe, and the JSON schemas of its parts",
    response_model=FamilyDetail,
    responses={
        200: _ONE,
        304: NOT_MODIFIED,
        **responses("family_not_found", "precondition_failed"),
    },
)
def families_get(name: str, request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    with services.database.read() as session:
        declared = DeclaredFamilies(session, caller.workspace)
        family = found_family(name, declared)
        if family is None:
            raise _not_found(name, declared)
    return _delivered(request, _detail(family, declared=name not in FAMILIES))


@router.post(
    "/families",
    operation_id="families_create",
    summary="Declare a family of your own",
    description=(
        "Its tasks are of a kind that the server has, such as `expression`, whose loss is text. The name is known in "
        "your workspace alone, wherever a family is named. A family never changes: the same request again answers 200, "
        "another one with that name 409."
    ),
    status_code=201,
    response_model=FamilyDetail,
    responses={
        200: {"description": "Declared before, as it is.", "model": FamilyDetail, **_ONE},
        201: {
            "description": "Declared. `Location` is the family's address.",
            **_ONE,
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **responses(
            "invalid_json", "cross_origin", "body_too_large", "unsupported_media_type", "invalid_request",
            "family_exists", "too_many_families", "data_set_missing", "unknown_family",
        ),
    },
)  # fmt: skip
def families_create(
    body: Annotated[FamilyRequest, Body(openapi_examples={"expression": {"value": FAMILY_REQUEST}})],
    services: ServicesDep,
    caller: CallerDep,
) -> Response:
    family = _read(body, services, caller)
    try:
        made = _added(family, services, caller)
    except DatasetNotFound:  # it was deleted, or replaced, between the two transactions
        family = _read(body, services, caller)
        made = _added(family, services, caller)
    content = _detail(family, declared=True).model_dump_json()
    headers = {"Location": f"/families/{family.name}"} if made else {}
    return Response(content, 201 if made else 200, headers, media_type="application/json")


def _read(body: FamilyRequest, services: Services, caller: Caller) -> FamilySpec:
    with services.database.read() as session:
        known = DeclaredFamilies(session, caller.workspace)
        return declared_family(body, Datasets(session, caller.workspace), known)


def _added(family: FamilySpec, services: Services, caller: Caller) -> bool:
    with services.database.write() as session:
        Datasets(session, caller.workspace).hold(family.tasks.tables)
        return DeclaredFamilies(session, caller.workspace).add(family)


def _detail(family: FamilySpec, *, declared: bool) -> FamilyDetail:
    parts = {"tasks": family.tasks, "recipe": family.recipe, "evaluation": family.evaluation}
    schemas = {part: type(value).model_json_schema() for part, value in parts.items()}
    return FamilyDetail(**_fields(family, declared=declared), schemas=schemas)


def known_family_name(name: str, services: ServicesDep, caller: CallerDep) -> str:
    """A path's family. Raises Problem `family_not_found`, which says what there is and what may have been meant."""
    if name not in FAMILIES:
        with services.database.read() as session:
            declared = DeclaredFamilies(session, caller.workspace)
            if name not in declared.names():
                raise _not_found(name, declared)
    return name


def _not_found(name: str, declared: DeclaredFamilies) -> Problem:
    detail, suggestion = no_such_family(name, declared)
    return Problem("family_not_found", detail, suggestion=suggestion)


def _readable(row: FamilyRow) -> FamilySpec | PluginProblem:
    """The family of a row; or why it cannot be read, where what made its kind has gone or has changed."""
    try:
        return FamilySpec.model_validate(row.spec)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        return PluginProblem(plugin=row.name, reason=f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}")


def _delivered(request: Request, document: BaseModel) -> Response:
    content = document.model_dump_json().encode()
    return deliver(request.headers, content, "application/json", cache_control="private, no-cache")


def _fields(family: FamilySpec, *, declared: bool = False) -> dict[str, Any]:
    return {name: getattr(family, name) for name in FamilySpec.model_fields} | {
        "coordinates_per_task": family.tasks.coordinates_per_task,
        "declared": declared,
    }
