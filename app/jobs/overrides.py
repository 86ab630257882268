"""Request bodies that change parts of a spec: every field optional, every bound the spec's own.

The model of a partial `Recipe` is derived from `Recipe`, so the bounds, descriptions and the JSON schema that users
see are written once, in `models.spec`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, create_model
from pydantic.fields import FieldInfo

from app.http.fields import Name, Request
from models.spec import ByKind, Component, EvaluationPlan, PreviewPlan, Recipe, Resources, Spec


@cache
def partial(spec: type[BaseModel]) -> type[BaseModel]:
    """`<Spec>Overrides`: the fields of `spec`, all optional, nested specs partial too.

    Numbers are strict: "100" is no count and true is not 1. What a request leaves out stays unset
    (`model_dump(exclude_unset=True)`), for `models.spec.overridden` to fill from the family's recipe.
    """
    fields: dict[str, Any] = {}
    for name, field in spec.model_fields.items():
        annotation: Any = field.annotation
        annotation = Annotated[(annotation, *field.metadata)] if _has_kinds(field.metadata) else annotation
        if isinstance(annotation, type) and issubclass(annotation, Spec):
            annotation = partial(annotation)
        else:
            annotation = _strict(annotation)
        fields[name] = (annotation, _optional(field))
    return create_model(
        f"{spec.__name__}Overrides",
        __config__=ConfigDict(extra="forbid", allow_inf_nan=False, title=f"{spec.__name__}Overrides"),
        __doc__=f"{spec.__doc__ or spec.__name__} Each field is optional; the default is the family's recipe.",
        **fields,
    )


def _strict(annotation: Any) -> Any:
    """The same type without conversions; also within lists, tuples and mappings. Objects of a kind are partial."""
    if annotation in (int, float, bool, str):
        return Annotated[annotation, Strict()]
    if annotation is Component:
        return ComponentRequest
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        return Annotated[(_strict(inner), *map(_partial_kinds, metadata))]
    if get_origin(annotation) is UnionType:
        return Union[tuple(_strict(choice) for choice in get_args(annotation))]  # noqa: UP007 - made at run time
    if get_origin(annotation) in (list, tuple, dict):
        return get_origin(annotation)[tuple(_strict(inner) for inner in get_args(annotation))]
    return annotation


def _has_kinds(metadata: Iterable[Any]) -> bool:
    return any(isinstance(each, ByKind) for each in metadata)


def _partial_kinds(metadata: Any) -> Any:
    if not isinstance(metadata, ByKind):
        return metadata
    return ByKind({kind: partial(choice) for kind, choice in metadata.choices.items()}, metadata.usual)


def _optional(field: FieldInfo) -> FieldInfo:
    merged = FieldInfo(default=None, description=field.description, json_schema_extra=_without_default)
    merged.metadata = [each for each in field.metadata if not isinstance(each, ByKind)]
    return merged


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def _refuse_what_is_no_object(value: Any) -> Any:
    """In its own words: who sends a number here means another field."""
    if isinstance(value, dict):
        return value
    raise ValueError(
        "send a JSON object with the fields of the family's tasks that change, which schemas.tasks of GET "
        "/families/{name} lists; how many tasks there are is recipe.tasks for a training and evaluation.test_tasks for "
        "an evaluation"
    )


TaskOverrides = Annotated[
    dict[str, Any],
    BeforeValidator(_refuse_what_is_no_object),
    Field(
        description="Fields of the family's tasks that change, such as `hidden` of `digits-mlp`. Their schema is "
        "`schemas.tasks` of `GET /families/{name}`."
    ),
]


class ComponentRequest(Request):
    """A family that a rule is trained and validated on beside the job's own."""

    family: Name = Field(description="A name of GET /families.")
    tasks: TaskOverrides = Field(default_factory=dict)
    weight: Annotated[float, Strict()] = Field(
        1.0, gt=0, le=1000, description=Component.model_fields["weight"].description
    )


if TYPE_CHECKING:  # classes made at run time have no name that a type checker can use
    RecipeOverrides: TypeAlias = BaseModel
    EvaluationPlanOverrides: TypeAlias = BaseModel
    PreviewPlanOverrides: TypeAlias = BaseModel
    ResourcesOverrides: TypeAlias = BaseModel
else:
    RecipeOverrides = partial(Recipe)
    EvaluationPlanOverrides = partial(EvaluationPlan)
    PreviewPlanOverrides = partial(PreviewPlan)
    ResourcesOverrides = partial(Resources)
