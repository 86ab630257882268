"""Entity tags, and the conditions that a write carries against lost updates (RFC 9110, section 13; RFC 6585)."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Header
from starlette.datastructures import Headers

from app.http.problems import Problem
from app.http.wording import IF_MATCH_PATTERN
from app.store.aliases import Expected

_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        pattern=IF_MATCH_PATTERN,
        description="The `ETag` that you saw; `*` takes whatever is there. This or `If-None-Match` is required.",
    ),
]
IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", pattern=r"^\*$", description="`*`: only if there is none yet.")
]


def field(headers: Headers, name: str) -> str | None:
    """A list-valued header as one text, however many lines it came in."""
    lines = headers.getlist(name)
    return ", ".join(lines) if lines else None


def entity_tags(text: str) -> list[str]:
    """The tags that a condition lists, with their quotes and `W/`."""
    return _TAG.findall(text)


def expected(if_match: str | None, if_none_match: str | None) -> Expected:
    """What a write takes for granted. Raises Problem `precondition_required` where it says nothing.

    The comparison is strong: a weak tag is never met.
    """
    if if_match is None and if_none_match is None:
        raise Problem(
            "precondition_required",
            "This would overwrite what somebody else may have changed. Send If-Match with the ETag that GET gave you, "
            "or If-None-Match: * to make what is not there yet.",
        )
    if if_match is None or if_match.strip() == "*":
        tags = None
    else:
        tags = frozenset(tag[1:-1] for tag in entity_tags(if_match) if not tag.startswith("W/"))
    return Expected(absent=if_none_match is not None, present=if_match is not None, tags=tags)
