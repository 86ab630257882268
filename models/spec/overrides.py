"""Values that a request lays over a spec."""

from __future__ import annotations

from typing import Any

from models.task_spec import Spec


def overridden(default: Spec, changes: dict[str, Any]) -> Any:
    """`default` with `changes` laid over it, nested objects field by field, validated anew. An object of another
    `kind` takes the place of the whole.

    Raises pydantic.ValidationError, with the field's own location, when a value does not fit.
    """
    merged = default.model_dump()
    _lay_over(merged, changes)
    return type(default).model_validate(merged)


def _lay_over(target: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        present = target.get(key)
        if (
            isinstance(value, dict)
            and isinstance(present, dict)
            and value.get("kind", present.get("kind")) == present.get("kind")
        ):
            _lay_over(present, value)
        else:
            target[key] = value
