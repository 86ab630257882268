"""Kinds that operators add: packages with an entry point in the group `gradsmith.families`, and the files that
GRADSMITH_FAMILIES names, separated like those of PATH. docs/extending.md walks through one.

A plug-in that cannot be loaded becomes a Problem and is logged with its traceback; nothing else goes down with it.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from models.families.base import Kind

logger = logging.getLogger(__name__)

GROUP = "gradsmith.families"
VARIABLE = "GRADSMITH_FAMILIES"


@dataclass(frozen=True)
class Problem:
    """A plug-in that could not be loaded. plugin: its name, with the version where it has one; reason: in words."""

    plugin: str
    reason: str


def load(register: Callable[[Kind], None]) -> tuple[Problem, ...]:
    """Register the kinds of every plug-in. Returns those that failed."""
    problems = []
    for plugin, kinds in _sources():
        try:
            with _WithoutTorch():
                loaded = kinds()
            for kind in [loaded] if isinstance(loaded, Kind) else _all_kinds(loaded):
                register(_signed(kind, plugin))
        except (Exception, SystemExit) as error:  # a script's main() may end the interpreter
            logger.exception("The plug-in %s could not be loaded; its families are missing.", plugin)
            problems.append(Problem(plugin, f"{type(error).__name__}: {error}"))
    return tuple(problems)


def _sources() -> Iterable[tuple[str, Callable[[], object]]]:
    """The name of each plug-in, and what loads it. Clients read the names, so a file goes without its folder."""
    for point in entry_points(group=GROUP):
        yield _name_of(point), point.load
    for path in map(Path, filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))):
        yield path.name, partial(_kinds_of_file, path)


def _name_of(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _signed(kind: Kind, plugin: str) -> Kind:
    """The kind with the plug-in's name in its families, so that every job's record names what made its tasks."""
    return replace(kind, built_in=tuple(family.model_copy(update={"plugin": plugin}) for family in kind.built_in))


def _kinds_of_file(path: Path) -> object:
    """The file's KINDS, or its KIND. Its folder can be imported from, so that `tasks` may name a module beside it."""
    path = path.expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; set {VARIABLE} to a Python file that defines KINDS")
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file; set {VARIABLE} to one whose name ends in .py")
    if path.stem in sys.modules:
        raise ImportError(f"a module {path.stem!r} exists already; give {path} another name")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    found: object = getattr(module, "KINDS", None) or getattr(module, "KIND", None)
    if found is None:
        raise AttributeError(f"{path} defines neither KINDS nor KIND; define one, a models.families.base.Kind")
    return found


def _all_kinds(loaded: object) -> Sequence[Kind]:
    kinds: list[Kind] = []
    for kind in loaded if isinstance(loaded, Iterable) else [loaded]:
        if not isinstance(kind, Kind):
            raise TypeError(f"{kind!r} is not a models.families.base.Kind; a plug-in gives one, or a sequence of them")
        kinds.append(kind)
    return kinds


class _WithoutTorch(MetaPathFinder):
    """Refuses the import of torch while it is entered, in a process that has not imported it: the API must not."""

    def __enter__(self) -> None:
        sys.meta_path.insert(0, self)

    def __exit__(self, *_: object) -> None:
        sys.meta_path.remove(self)

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002
        if name == "torch":
            raise ImportError(
                "a plug-in's module with its specs must not import torch, which the API does not have; move that to "
                "the module that `tasks` names"
            )
        return None
