"""What is wrong with a value, in the words of this API: one sentence with the value and the next step.

pydantic finds the errors, but its messages speak of Python ("a valid dictionary or object to extract fields from").
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from app.http.fields import LABEL_KEY_PATTERN, TAG_PATTERN
from app.store.aliases import ALIAS_PATTERN
from app.store.families import FAMILY_NAME_PATTERN
from models.spec import ByKind

IDEMPOTENCY_KEY_PATTERN = r"^[\x21-\x7e]{1,255}$"
IF_MATCH_PATTERN = r'^(\*|(W/)?"[!#-~]*"([ \t]*,[ \t]*(W/)?"[!#-~]*")*)$'

PATTERNS = {
    IDEMPOTENCY_KEY_PATTERN: "1 to 255 visible ASCII characters without spaces, such as a UUID",
    IF_MATCH_PATTERN: '* or the ETag of a GET with its quotes, such as "3-0198f0c2a4b07e3f"',
    r"^\*$": "*, which asks that there be none yet",
    ALIAS_PATTERN: "1 to 64 lower-case letters, digits, dots, hyphens or underscores, a letter first",
    FAMILY_NAME_PATTERN: "1 to 64 lower-case letters, digits, hyphens or underscores, a letter first",
    TAG_PATTERN: "key or key=value, as in the `metadata` of the job: team=vision",
    LABEL_KEY_PATTERN: "1 to 64 letters, digits, dots, hyphens or underscores",
}
_LONGEST_VALUE = 60


def in_words(error: Mapping[str, Any], model: type[BaseModel] | None = None) -> str:
    """One of pydantic's errors as a sentence without its place. `model` is what the whole body should be, where known;
    the error's `loc` then leads to the object that an unknown field stands in."""
    kind, context = str(error["type"]), error.get("ctx") or {}
    if kind == "extra_forbidden":
        *place, name = map(str, error["loc"])
        meant = choice(name, context["known"]) if "known" in context else _field_meant(name, model, place)
        return f"{name!r} is not a field here; {meant}"
    if kind == "string_type":
        path = error.get("loc", ())
        return _not_text(str(path[0]) if len(path) == 1 else None, error.get("input"))
    if kind in _WORDS:
        return _WORDS[kind](shown(error.get("input")), error.get("input"), context)
    message = str(error["msg"]).removeprefix("Value error, ")
    value = error.get("input")
    return f"{message}; got {shown(value)}" if isinstance(value, bool | int | float | str) else message


def shown(value: Any) -> str:
    """A value as JSON, cut where it is long. Its text is ASCII, so that half a surrogate pair cannot break it."""
    text = json.dumps(value, default=repr)
    if len(text) <= _LONGEST_VALUE:
        return text
    return f"{text[:_LONGEST_VALUE]}... ({len(value if isinstance(value, str) else text):,} characters)"


def choice(given: str, known: Sequence[str]) -> str:
    """`did you mean 'horizon'?`, or what there is to choose from."""
    close = difflib.get_close_matches(given, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are: {', '.join(known)}" if known else "see /docs for those that are"


def deepest(errors: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Without lists that are called too short only because one of their items, named by another error, was dropped."""
    found = list(errors)

    def is_consequence(error: Mapping[str, Any]) -> bool:
        place = tuple(error["loc"])
        return error["type"] == "too_short" and any(
            len(other["loc"]) > len(place) and tuple(other["loc"][: len(place)]) == place for other in found
        )

    return [error for error in found if not is_consequence(error)]


def _model_at(model: type[BaseModel] | None, path: Sequence[str | int]) -> type[BaseModel] | None:
    """The model of the object at `path` of a body of type `model`."""
    for part in path:
        model = _inner(model).get(str(part)) if model is not None else None
    return model


def _inner(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The fields of `model` that are objects with fields of their own."""
    annotations = {name: field.annotation for name, field in model.model_fields.items()}
    return {
        name: inner for name, inner in annotations.items() if isinstance(inner, type) and issubclass(inner, BaseModel)
    }


def _fields_within(model: type[BaseModel]) -> dict[str, list[str]]:
    """What the fields of `model` that are objects have as fields; where there are several kinds, those of all."""
    within = {name: list(inner.model_fields) for name, inner in _inner(model).items()}
    for name, field in model.model_fields.items():
        for by_kind in field.metadata:
            if isinstance(by_kind, ByKind):
                within[name] = list(
                    dict.fromkeys(each for kind in by_kind.choices.values() for each in kind.model_fields)
                )
    return within


def _field_meant(name: str, body: type[BaseModel] | None, place: Sequence[str]) -> str:
    """Also a field one level down: who writes `meta_steps` beside `recipe` meant `recipe.meta_steps`."""
    model = _model_at(body, place)
    if model is None:
        return choice(name, [])
    for inner, fields in ({} if name in model.model_fields else _fields_within(model)).items():
        if name in fields:
            return f"did you mean '{'.'.join((*place, inner, name))}'?"
    known = list(model.model_fields)
    if not difflib.get_close_matches(name, known, n=1):
        for inner, fields in _fields_within(model).items():
            if close := difflib.get_close_matches(name, fields, n=1, cutoff=0.75):
                return f"did you mean '{'.'.join((*place, inner, close[0]))}'?"
    return choice(name, known)


def _of_type(wanted: str, advice: str) -> Callable[[str, Any, Mapping[str, Any]], str]:
    def words(text: str, value: Any, _context: Mapping[str, Any]) -> str:
        given = next((f"{name}, " for kind, name in _TYPES if isinstance(value, kind)), "")
        return f"{text} is {given}not {wanted}; {advice}"

    return words


# what a value is called where another was wanted; null and numbers speak for themselves
_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "a truth value"), (str, "text"), (list, "an array"), (dict, "an object"),
)  # fmt: skip


_NAMES = {
    "family": 'send the name of a family, such as "quadratic" (GET /families lists them)',
    "optimizer": 'send an id or a reference, such as "quadratic@best"',
    "name": "send a name of your own in double quotes",
}
"""What the body's own fields want whose value is a name."""


def _not_text(field: str | None, value: Any) -> str:
    """field: the name of a field of the body itself, None for one further down (a label may be called `family`)."""
    quoted = isinstance(value, bool | int | float)  # of an object, double quotes would make no name
    advice = "put it in double quotes" if quoted else 'send text in double quotes, such as "a"'
    advice = _NAMES.get(field or "", advice)
    if field == "family" and isinstance(value, dict):
        advice += "; what a job may change of it goes into `tasks`, `recipe` and `evaluation`"
    return _of_type("text", advice)(shown(value), value, {})


def _tag(_text: str, value: Any, context: Mapping[str, Any]) -> str:
    given = shown(value["kind"]) if isinstance(value, dict) and "kind" in value else shown(context["tag"])
    return f"{given} is not one of the choices; {_kinds(context)}"


def _kinds(context: Mapping[str, Any]) -> str:
    """`models` of the context: what may be sent, by its tag. Each says in its docstring what it does."""
    models: Mapping[str, type[BaseModel]] = context.get("models", {})
    choices = []
    for tag, model in models.items():
        does = (model.__doc__ or "").partition(".")[0]
        choices.append(f'"{tag}" to {does[:1].lower()}{does[1:]}')
    if not choices:
        return "see /docs for those that are"
    *before, last = choices
    return f"send {', '.join(before)}, or {last}" if before else f"send {last}"


def _literal(text: str, value: Any, context: Mapping[str, Any]) -> str:
    expected = str(context["expected"]).replace("'", '"')
    names = [name for name in expected.split('"')[1::2] if name]
    close = difflib.get_close_matches(value, names, n=1) if isinstance(value, str) else []
    meant = f' (did you mean "{close[0]}"?)' if close else ""
    return f"{text} is not one of the choices{meant}; send {expected}"


def _pattern(text: str, _value: Any, context: Mapping[str, Any]) -> str:
    wanted = PATTERNS.get(context["pattern"], f"text that matches {context['pattern']}")
    return f"{text} does not fit; send {wanted}"


def _object(text: str, value: Any, context: Mapping[str, Any]) -> str:
    """`kinds` of the context: what the object's `kind` may be, the usual one first."""
    kinds = context.get("kinds", ())
    close = difflib.get_close_matches(value, kinds, n=1) if isinstance(value, str) else []
    example = json.dumps({"kind": [*close, *kinds][0]}) if kinds else "{}"
    return _of_type("a JSON object", f"send one such as {example}, or leave it out")(text, value, context)


def _array(text: str, value: Any, context: Mapping[str, Any]) -> str:
    """One item lacks its brackets; null or an object is no item."""
    is_item = isinstance(value, bool | int | float | str)
    advice = "put it in square brackets" if is_item else "send its items in square brackets, or leave it out"
    if isinstance(value, str) and (items := _items_within(value)):
        advice = f"send {json.dumps(items)}"
    return _of_type("an array", advice)(text, value, context)


def _items_within(text: str) -> list[Any]:
    """The items of a list that was sent as one text: "[nag,adam]", "nag, adam", "[16, 32]"."""
    bare = text.strip().removeprefix("[").removesuffix("]")
    if (bare == text.strip() and "," not in bare) or len(text) > _LONGEST_VALUE:
        return []
    try:
        found = json.loads(f"[{bare}]")
    except ValueError:
        return [item for each in bare.split(",") if (item := each.strip(" \"'"))]
    return found if isinstance(found, list) else []


def _without_quotes(wanted: str, example: str, also: str = "") -> Callable[[str, Any, Mapping[str, Any]], str]:
    """Advice about quotes for text alone; for anything else they are not what is wrong."""

    def words(text: str, value: Any, context: Mapping[str, Any]) -> str:
        hint = f", without quotes{also}" if isinstance(value, str) else ""
        return _of_type(wanted, f"send {example}{hint}")(text, value, context)

    return words


_whole = _without_quotes("a whole number", "one such as 20", " or fraction")
_number = _without_quotes("a number", "one such as 0.5")

_WORDS: dict[str, Callable[[str, Any, Mapping[str, Any]], str]] = {
    "missing": lambda text, _, __: f"is required, but missing in {text}; add it",
    "union_tag_not_found": lambda text, _, context: f"is required, but missing in {text}; {_kinds(context)}",
    "union_tag_invalid": _tag,
    "model_attributes_type": _object,
    "model_type": _object,
    "dict_type": _object,
    "list_type": _array,
    "tuple_type": _array,
    "string_unicode": lambda text, _, __: f"{text} holds half of a surrogate pair; send whole characters",
    "int_type": _whole,
    "int_from_float": _whole,
    "int_parsing": lambda text, _, __: f"{text} is not a whole number; send digits, such as 20",
    "int_parsing_size": lambda text, _, __: f"{text} is too large; send a number of fewer digits",
    "float_type": _number,
    "float_parsing": lambda text, _, __: f"{text} is not a number; send digits, such as 0.5",
    "finite_number": lambda text, _, __: f"{text} is not finite; send a finite number",
    "bool_type": _without_quotes("a truth value", "true or false"),
    "greater_than_equal": lambda text, _, context: f"{text} is too small; send {context['ge']} or more",
    "greater_than": lambda text, _, context: f"{text} is too small; send more than {context['gt']}",
    "less_than_equal": lambda text, _, context: f"{text} is too large; send {context['le']} or less",
    "less_than": lambda text, _, context: f"{text} is too large; send less than {context['lt']}",
    "string_too_short": lambda text, _, context: (
        f"{text} is too short; send {context['min_length']} or more characters"
    ),
    "string_too_long": lambda text, _, context: f"{text} is too long; send {context['max_length']} characters or fewer",
    "string_pattern_mismatch": _pattern,
    "too_short": lambda text, _, context: f"{text} is too short; send {context['min_length']} or more items",
    "too_long": lambda _, value, context: f"{len(value)} items are too many; send {context['max_length']} or fewer",
    "literal_error": _literal,
}
