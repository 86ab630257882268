"""What an operation takes as its body, as its route says it: so that a refusal can show one that fits."""

from __future__ import annotations

import json
from dataclasses import dataclass

from fastapi import params
from fastapi.routing import APIRoute
from pydantic import BaseModel


@dataclass(frozen=True)
class ExpectedBody:
    """`model` is None where the body itself says which of several it is; `example` is JSON."""

    model: type[BaseModel] | None = None
    example: str = "{}"


def expected_body(route: object) -> ExpectedBody:
    """The body that the route of a request expects."""
    field = route.body_field if isinstance(route, APIRoute) else None
    if field is None:
        return ExpectedBody()
    info = field.field_info
    kind = info.annotation
    examples = (info.openapi_examples if isinstance(info, params.Body) else None) or {}
    return ExpectedBody(
        model=kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None,
        example=next((json.dumps(example["value"]) for example in examples.values()), "{}"),
    )
