"""What an operation takes as its body, as its route says it: so that a refusal can show one that fits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from fastapi import params
from fastapi.routing import APIRoute
from pydantic import BaseModel


@dataclass(frozen=True)
class ExpectedBody:
    """`model` is None where the body itself says which of several it is: `by_tag` has each by what its `kind` says.
    `example` is JSON."""

    model: type[BaseModel] | None = None
    by_tag: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    example: str = "{}"


def expected_body(route: object) -> ExpectedBody:
    """The body that the route of a request expects."""
    body = route.body_field if isinstance(route, APIRoute) else None
    if body is None:
        return ExpectedBody()
    info = body.field_info
    kind = info.annotation
    examples = (info.openapi_examples if isinstance(info, params.Body) else None) or {}
    return ExpectedBody(
        model=kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None,
        by_tag={} if info.discriminator is None else _by_tag(kind, str(info.discriminator)),
        example=next((json.dumps(example["value"]) for example in examples.values()), "{}"),
    )


def _by_tag(union: object, discriminator: str) -> dict[str, type[BaseModel]]:
    members: tuple[type[BaseModel], ...] = get_args(union)
    return {tag: member for member in members for tag in get_args(member.model_fields[discriminator].annotation)}
