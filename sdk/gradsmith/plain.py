"""Request bodies as JSON holds them: numbers and arrays of numpy, torch and the like become numbers and lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradsmith.errors import UnsendableValue

MOST_DEPTH = 100  # the server takes far less; a list that holds itself has no end


def plain(value: Any, pointer: str = "") -> Any:
    """`value` with nothing in it but dicts, lists, strings, numbers, booleans and None. No library is imported for it.

    pointer: where `value` stands in the request (a JSON pointer), for the message.
    Raises UnsendableValue, which names the field.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if pointer.count("/") > MOST_DEPTH:
        raise UnsendableValue(f"{pointer[:60]}... is nested over {MOST_DEPTH} deep; does it hold itself?")
    if isinstance(value, Mapping):
        return {_name(key, pointer): plain(each, f"{pointer}/{_token(key)}") for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each, f"{pointer}/{number}") for number, each in enumerate(value)]
    if isinstance(value, (bool, int, float, str)):  # an enumeration's member, numpy.float64, numpy.str_
        return value
    to_list = getattr(value, "tolist", None)  # numpy, torch, jax, pandas, array.array; of a scalar it is the number
    if callable(to_list) and not isinstance(value, type):
        inner = to_list()
        if not hasattr(inner, "tolist"):
            return plain(inner, pointer)
    raise UnsendableValue(
        f"{pointer or 'the request'} is {_shown(value)} ({type(value).__module__}.{type(value).__qualname__}), which "
        "JSON cannot hold; give a number, a string, a boolean, None, a list or a dict"
    )


def _name(key: object, pointer: str) -> str:
    if isinstance(key, str):
        return key
    raise UnsendableValue(f"{pointer or 'the request'} has the key {_shown(key)}; keys are strings")


def _token(key: object) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
