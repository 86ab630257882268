"""What is swept: the lists and ranges in the recipe and the seed of a request."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from app.http.problems import FieldError, invalid_request
from models.spec import MOST_AXES, Axis, Choices, Range

MOST_CHOICES = 128
_HOLD_LISTS = ("validation_horizons",)
"""Fields of a recipe whose value is a list: there a list of lists is swept."""
_LARGEST = 1e15
_RANGE = {"low", "high", "log"}
_SHOWN = 'a list of values, or a range such as {"low": 0.001, "high": 0.1, "log": true}'

Path: TypeAlias = tuple[str, ...]


def swept(recipe: Mapping[str, Any], seed: Any) -> tuple[dict[str, Any], list[Axis]]:
    """The recipe without what is swept, and that. Raises Problem `invalid_request`, which points at the value.

    Integers of a range are drawn as integers where the field takes no others, which only `children` can tell.
    """
    axes: list[Axis] = []
    fixed = _without(dict(recipe), ("recipe",), axes)
    if isinstance(seed, list):
        axes.append(_choices(("seed",), seed))
    if not axes:
        raise refused((), "nothing_swept", f"sweeps nothing; send {_SHOWN} in the place of a value of the recipe")
    if len(axes) > MOST_AXES:
        raise refused(("recipe",), "too_many", f"{len(axes)} fields are swept, and {MOST_AXES} may be")
    return fixed, axes


def refused(path: Sequence[str], code: str, message: str) -> Exception:
    """The Problem for one place of the body."""
    pointer = "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in path)
    return invalid_request([FieldError(location="body", pointer=pointer, code=code, message=message)])


def put(target: dict[str, Any], path: Path, value: Any) -> None:
    """Lay a value into nested objects, which are made where they are missing."""
    for name in path[:-1]:
        target = target.setdefault(name, {})
    target[path[-1]] = copy.deepcopy(value)


def _without(given: dict[str, Any], path: Path, axes: list[Axis]) -> dict[str, Any]:
    fixed: dict[str, Any] = {}
    for name, value in given.items():
        here = (*path, name)
        if here == ("recipe", "mixture"):
            fixed[name] = value
        elif isinstance(value, list) and (name not in _HOLD_LISTS or (value and isinstance(value[0], list))):
            axes.append(_choices(here, value))
        elif isinstance(value, dict) and value and value.keys() <= _RANGE:
            axes.append(_range(here, value))
        elif isinstance(value, dict):
            inner = _without(value, here, axes)
            if inner or not value:
                fixed[name] = inner
        else:
            fixed[name] = value
    return fixed


def _choices(path: Path, values: list[Any]) -> Choices:
    if not values:
        raise refused(path, "empty", "an empty list leaves nothing to try; send the values, or leave the field out")
    if len(values) > MOST_CHOICES:
        raise refused(path, "too_many", f"{len(values)} values are too many: {MOST_CHOICES} may be swept in one field")
    for index, value in enumerate(values):
        if value in values[:index] and type(value) in {type(each) for each in values[:index] if each == value}:
            raise refused((*path, str(index)), "repeated", f"{value!r} is in the list already; send each value once")
    return Choices(path=path, values=tuple(values))


def _range(path: Path, given: Mapping[str, Any]) -> Range:
    for end in ("low", "high"):
        value = given.get(end)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise refused((*path, end), "range", f"a range has a number as its {end} end; send {_SHOWN}")
        if abs(value) > _LARGEST:
            raise refused(
                (*path, end), "range", "that is too large for the end of a range; numbers have 15 digits at most"
            )
    low, high, log = given["low"], given["high"], given.get("log", False)
    if not isinstance(log, bool):
        raise refused((*path, "log"), "range", f"log is true or false, not {log!r}")
    if not low < high:
        raise refused((*path, "high"), "range", f"high {high} is to be above low {low}")
    if log and low <= 0:
        raise refused((*path, "low"), "range", f"low {low} has no logarithm; send one above 0, or log false")
    return Range(path=path, low=low, high=high, log=log)
