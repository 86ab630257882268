"""Types of fields that several requests have, with their bounds."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

MAX_LABELS = 16
LABEL_KEY_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"
TAG_PATTERN = r"^[A-Za-z0-9_.-]{1,64}(=[^\x00]{0,512})?$"


def storable(text: str) -> str:
    """Neither database keeps NUL or half a surrogate pair in text."""
    if "\x00" in text or re.search("[\ud800-\udfff]", text):
        raise ValueError("text with a NUL or half of a surrogate pair cannot be stored; leave that character out")
    return text


MOST_LEVELS, MOST_VALUES = 16, 20_000


def storable_json(value: Any) -> None:
    """Raises ValueError where both databases would not keep this JSON value as it is."""
    levels = [(value, 1)]
    seen = 0
    while levels:
        each, depth = levels.pop()
        seen += 1
        if depth > MOST_LEVELS or seen > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_LEVELS} levels or {MOST_VALUES:,} values")
        if isinstance(each, str):
            storable(each)
        elif isinstance(each, dict):
            levels += [(inner, depth + 1) for pair in each.items() for inner in pair]
        elif isinstance(each, list):
            levels += [(inner, depth + 1) for inner in each]
        elif isinstance(each, float) and not math.isfinite(each):
            raise ValueError("it holds a number that is not finite")
        elif isinstance(each, int) and abs(each) >= 2**63:
            raise ValueError("it holds a whole number of more than 63 bits")


# For readers of the schema; half a surrogate pair is nothing that a pattern could name.
_WITHOUT_NUL: dict[str, Any] = {"pattern": r"^[^\u0000]*$"}
Name = Annotated[
    str, Strict(), Field(min_length=1, max_length=128, json_schema_extra=_WITHOUT_NUL), AfterValidator(storable)
]
Description = Annotated[str, Strict(), Field(max_length=2000, json_schema_extra=_WITHOUT_NUL), AfterValidator(storable)]
LabelKey = Annotated[str, Strict(), Field(pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, Strict(), Field(max_length=512, json_schema_extra=_WITHOUT_NUL), AfterValidator(storable)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=MAX_LABELS)]
Tag = Annotated[str, Field(pattern=TAG_PATTERN), AfterValidator(storable)]
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**63)]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    slow_to_resolve: ClassVar[bool] = False
    """Whether to find out what it asks for takes so long that a thread should."""
