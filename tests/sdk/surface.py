"""The public surface of `gradsmith` as text: names and signatures. `python -m tests.sdk.surface` writes surface.txt."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gradsmith
from gradsmith import errors, events, pages, types

WRITTEN = Path(__file__).with_name("surface.txt")


def surface() -> str:
    """One name a line: exports, both clients and their calls, records, events, errors."""
    lines = [f"gradsmith.{name}" for name in sorted(gradsmith.__all__)]
    for client in (gradsmith.Client("http://x"), gradsmith.AsyncClient("http://x")):
        lines += calls(client)
    for page in (pages.Page, pages.AsyncPage, pages.AsyncListing):
        lines += [f"types.{page.__name__}.{line}" for line in members(page)]
    for module in (types, events):
        lines += records(module)
    lines += [
        f"errors.{name}({value.__mro__[1].__name__})"
        for name, value in sorted(vars(errors).items())
        if inspect.isclass(value) and value.__module__ == errors.__name__
    ]
    return "\n".join(lines) + "\n"


def calls(client: Any) -> Iterator[str]:
    """The client's own methods, then those of its resources."""
    name = type(client).__name__
    yield f"{name}{signature(type(client))}"
    yield from (f"{name}.{line}" for line in members(type(client)))
    for noun, resource in vars(client).items():
        if noun.startswith("_"):
            continue
        for method in public(resource):
            yield f"{name}.{noun}.{method}{signature(getattr(resource, method))}"


def members(kind: type) -> Iterator[str]:
    """The methods and properties of a class."""
    for name in public(kind):
        value = inspect.getattr_static(kind, name)
        if isinstance(value, property):
            yield f"{name}: {inspect.signature(value.fget).return_annotation}"
        elif isinstance(value, classmethod):
            yield f"{name}{signature(getattr(kind, name))}"
        elif inspect.isfunction(value):
            yield f"{'async ' if inspect.iscoroutinefunction(value) else ''}{name}{signature(value)}"


def records(module: ModuleType) -> Iterator[str]:
    """The frozen values of a module, with their fields and methods."""
    for name, kind in sorted(vars(module).items()):
        if inspect.isclass(kind) and hasattr(kind, "__dataclass_fields__") and kind.__module__ == module.__name__:
            yield f"{module.__name__.partition('.')[2]}.{name}({', '.join(kind.__dataclass_fields__)})"
            yield from (f"{module.__name__.partition('.')[2]}.{name}.{line}" for line in members(kind))


def signature(method: Callable[..., Any]) -> str:
    """The signature as the source has it: its annotations are text, without quotes."""
    return re.sub(r"""(: |-> )(?:'([^']*)'|"([^"]*)")""", r"\1\2\3", str(inspect.signature(method)))


def public(value: Any) -> list[str]:
    """Names without an underscore before them."""
    return [name for name in dir(value) if not name.startswith("_")]


if __name__ == "__main__":
    WRITTEN.write_text(surface(), encoding="utf-8")
