"""JSON schemas in words: what a value is, within which bounds, and which fields an object has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.http.wording import PATTERNS
from app.openapi.reference.html import attribute, code, link, prose, table

Schema = Mapping[str, Any]

_PATTERNS = {pattern: prose(words) for pattern, words in PATTERNS.items()} | {r"^[^\u0000]*$": "without NUL"}


def type_of(schema: Schema) -> str:
    """HTML such as `integer, 1 to 100` or `array of Job`, with links to the schemas that it names."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return link(f"schema-{name}", code(name))
    for key in ("oneOf", "anyOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(type_of(kind) for kind in schema[key]))
    if "const" in schema:
        return code(json.dumps(schema["const"]))
    if "enum" in schema:
        return " or ".join(code(json.dumps(value)) for value in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return f"array of {type_of(schema.get('items', {}))}{_bounds(schema)}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {type_of(schema['additionalProperties'])}{_bounds(schema)}"
    if kind == "string" and schema.get("format") == "binary":
        return "bytes"
    return f"{kind or 'any value'}{_bounds(schema)}"


def fields(schema: Schema) -> str:
    """The table of an object's fields; empty when it names none."""
    required = schema.get("required", [])
    if set(required) == set(schema.get("properties", ())):
        required = []  # an answer always has all of its fields
    rows = [
        (
            code(name) + ('<span class="required"> required</span>' if name in required else ""),
            type_of(field),
            prose(field.get("description", "")) + _default(field),
        )
        for name, field in schema.get("properties", {}).items()
    ]
    return table(rows, ("field", "type", "meaning")) if rows else ""


def section(name: str, schema: Schema) -> str:
    described = f"<p>{prose(schema['description'])}</p>" if "description" in schema else ""
    inner = fields(schema) or f"<p>{type_of(schema)}</p>"
    anchor = f"schema-{attribute(name)}"
    return f'<section id="{anchor}" class="schema"><h3>{link(anchor, code(name))}</h3>{described}{inner}</section>'


def _default(schema: Schema) -> str:
    return f" Default: {code(json.dumps(schema['default']))}." if schema.get("default") is not None else ""


def _bounds(schema: Schema) -> str:
    said = []
    low, high = _least(schema), _most(schema)
    if low and high:
        said.append(f"{low} to {high}" if not low.startswith("more") else f"{low}, {high} at most")
    elif low or high:
        said.append(low if low.startswith("more") else f"{low} or more" if low else f"{high} at most")
    for least, most, unit in (
        ("minLength", "maxLength", "characters"), ("minItems", "maxItems", "items"),
        ("minProperties", "maxProperties", "entries"),
    ):  # fmt: skip
        if most in schema:
            said.append(f"{schema.get(least, 0)} to {schema[most]:,} {unit}")
        elif schema.get(least):
            said.append(f"{schema[least]} or more {unit}")
    if "format" in schema:
        said.append(schema["format"])
    if "pattern" in schema:
        said.append(_PATTERNS.get(schema["pattern"], f"as {code(schema['pattern'])}"))
    return "".join(f", {bound}" for bound in said)


def _least(schema: Schema) -> str:
    if "minimum" in schema:
        return _number(schema["minimum"])
    return f"more than {_number(schema['exclusiveMinimum'])}" if "exclusiveMinimum" in schema else ""


def _most(schema: Schema) -> str:
    if "maximum" in schema:
        return _number(schema["maximum"])
    return f"less than {_number(schema['exclusiveMaximum'])}" if "exclusiveMaximum" in schema else ""


def _number(value: float) -> str:
    whole = float(value).is_integer() and abs(value) < 1e15
    return f"{int(value):,}" if whole else "2<sup>63</sup>" if value >= 2**63 else f"{value:g}"
