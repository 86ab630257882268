"""Tasks of every kind, made by hypothesis from the kinds' JSON schemas: most could be, some are wrong somewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from models.families import KINDS

Schema = Mapping[str, Any]

TABLE = "rows"
"""A data set that there is."""
JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0, 10**9, 1e300, math.nan, "", "junk", "a\x00b", [], [[]], {}, {"kind": "mlp"}]
)
NAMES = ("x", "theta", "A", "width", "depth", "hidden", "dimension", "activation", "batch_size", "start_std")
TEXTS = {
    "loss": (
        "sum(x**2)", "sum((x - A)**2)", "sum(abs(x)) + sum(theta**2)", "mean(tanh(x)) + 1", "sum(A @ x)", "x[9]",
        "exp(exp(x))[0]", "sum(odeint(f, x, linspace(0, 1, 5)))", "sum(log(x))", "sum(y)", "(", "1",
    ),
    "definitions": ("f(s) = -s", "y = x + 1", "y = sum(A)", "f(s) = g(s)", "="),
}  # fmt: skip


@st.composite
def specs(draw: st.DrawFn, kind: str | None = None) -> dict[str, Any]:
    """One of `kind`, or of any."""
    name = kind or draw(st.sampled_from([*KINDS]))
    schema = KINDS[name].spec.model_json_schema()
    made: dict[str, Any] = draw(_object(schema, schema, 0)) | {"kind": name}
    if draw(st.integers(0, 9)) > 7:
        wrong = draw(st.sampled_from([*made, "unknown", "dataset"]))
        made[wrong] = draw(JUNK)
    return made


def _of(schema: Schema, root: Schema, name: str, depth: int) -> st.SearchStrategy[Any]:
    """name: that of the field"""
    if "$ref" in schema:
        where = schema["$ref"].rsplit("/", 1)[1]
        return st.just(TABLE) if where == "Table" else _object(root["$defs"][where], root, depth)
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return st.one_of([_of(each, root, name, depth) for each in schema[several]])
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "integer" | "number":
            return _numbers(schema)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "string":
            return st.sampled_from(TEXTS.get(name, ("quadratic", "lasso", "", "nobody")))
        case "array":
            return _lists(schema, root, name, depth)
        case "object":
            return _object(schema, root, depth)
    return JUNK


def _object(schema: Schema, root: Schema, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    if "properties" not in schema:
        inner = schema.get("additionalProperties")
        if isinstance(inner, Mapping):
            return st.dictionaries(st.sampled_from(NAMES), _of(inner, root, "", depth), max_size=3)
        return specs() if depth < 2 else st.just({"kind": "quadratic", "dimension": 2})
    needed: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for name, field in schema["properties"].items():
        into = needed if name in schema.get("required", ()) else optional
        into[name] = _of(field, root, name, depth + 1)
    return st.fixed_dictionaries(needed, optional=optional)


def _lists(schema: Schema, root: Schema, name: str, depth: int) -> st.SearchStrategy[list[Any]]:
    if "prefixItems" in schema:
        return st.tuples(*(_of(each, root, name, depth) for each in schema["prefixItems"])).map(list)
    least = schema.get("minItems", 0)
    most = min(schema.get("maxItems", 3), least + 2)
    return st.lists(_of(schema.get("items", {}), root, name, depth), min_size=least, max_size=most)


@st.composite
def _numbers(draw: st.DrawFn, schema: Schema) -> int | float:
    """Near the least; one in forty at the ends or beyond."""
    above: int | float | None = schema.get("exclusiveMinimum")
    most: int | float | None = schema.get("maximum")
    least: Any = schema.get("minimum", 0 if above is None else above)
    whole = schema["type"] == "integer"
    if draw(st.integers(0, 39)) == 39:
        end: int | float = draw(st.sampled_from([least, least - 1, *([] if most is None else [most, most * 2])]))
        return end
    small = (
        st.integers(least, least + 9) if whole else st.sampled_from([least + each for each in (0.01, 0.1, 0.5, 1.0)])
    )
    found: int | float = draw(small)
    return found if most is None else min(found, most)
