"""What can be trained on."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from app.api.dependencies import only_parameters
from app.api.schemas import Families, Family, FamilyDetail, PluginProblem
from app.http.delivery import NOT_MODIFIED, deliver
from app.http.problems import Problem, responses
from app.jobs.resolve import no_such_family
from app.openapi.examples import FAMILY
from models.families import FAMILIES, PROBLEMS
from models.spec import FamilySpec

router = APIRouter(tags=["families"])

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
def families_list(request: Request) -> Response:
    families = [Family(**_fields(family)) for family in FAMILIES.values()]
    problems = [PluginProblem(**vars(problem)) for problem in PROBLEMS]
    return _delivered(request, Families(data=families, has_more=False, next=None, problems=problems))


@router.get(
    "/families/{name}",
    operation_id="families_get",
    summary="One family, its recipe, and the JSON schemas of its parts",
    response_model=FamilyDetail,
    responses={
        200: {"content": {"application/json": {"example": FAMILY | {"schemas": {"tasks": {"type": "object"}}}}}},
        304: NOT_MODIFIED,
        **responses("family_not_found", "precondition_failed"),
    },
)
def families_get(name: str, request: Request) -> Response:
    family = FAMILIES[known_family_name(name)]
    parts = {"tasks": family.tasks, "recipe": family.recipe, "evaluation": family.evaluation}
    schemas = {part: type(value).model_json_schema() for part, value in parts.items()}
    return _delivered(request, FamilyDetail(**_fields(family), schemas=schemas))


def known_family_name(name: str) -> str:
    """A path's family. Raises Problem `family_not_found`, which says what there is and what may have been meant."""
    if name not in FAMILIES:
        detail, suggestion = no_such_family(name)
        raise Problem("family_not_found", detail, suggestion=suggestion)
    return name


def _delivered(request: Request, document: BaseModel) -> Response:
    content = document.model_dump_json().encode()
    return deliver(request.headers, content, "application/json", cache_control="private, no-cache")


def _fields(family: FamilySpec) -> dict[str, object]:
    return {name: getattr(family, name) for name in FamilySpec.model_fields} | {
        "coordinates_per_task": family.tasks.coordinates_per_task
    }
