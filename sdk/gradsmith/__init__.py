"""Learned optimizers for PyTorch, and the client of the Gradsmith service that trains them.

`import gradsmith` alone loads neither torch nor httpx: each public name brings what it needs when it is touched.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradsmith import errors as errors
    from gradsmith import events as events
    from gradsmith import types as types
    from gradsmith.client import AsyncClient as AsyncClient
    from gradsmith.client import Client as Client
    from gradsmith.errors import GradsmithError as GradsmithError
    from gradsmith.errors import OutsideTrainingWarning as OutsideTrainingWarning
    from gradsmith.optimizer import LearnedOptimizer as LearnedOptimizer
    from gradsmith.rules.weights import load as load

__version__ = "0.1.0"
__all__ = [
    "AsyncClient",
    "Client",
    "GradsmithError",
    "LearnedOptimizer",
    "OutsideTrainingWarning",
    "errors",
    "events",
    "load",
    "types",
]

_HOMES = {
    "AsyncClient": "gradsmith.client",
    "Client": "gradsmith.client",
    "GradsmithError": "gradsmith.errors",
    "LearnedOptimizer": "gradsmith.optimizer",
    "OutsideTrainingWarning": "gradsmith.errors",
    "load": "gradsmith.rules.weights",
}
_MODULES = ("errors", "events", "types")


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"gradsmith.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'gradsmith' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
