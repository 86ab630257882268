"""A program's best kernel on this machine, or why none, and the one log line where it could not be compiled."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol, TypeVar

from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.native.build import BuildFailed, BuildSettings, NotPrebuilt, built_here, prebuilt
from gradsmith.rules.kernels.native.library import Unloadable
from gradsmith.rules.kernels.native.targets import Target, targets_here
from gradsmith.rules.kernels.sizes import Program

logger = logging.getLogger(__name__)

# In the trial, against float64. A right kernel in float32 is a hundred times better, one that rounds factors ten times.
_LARGEST_ERROR, _LARGEST_ERROR_BFLOAT16 = 1e-4, 1e-2

L = TypeVar("L")


class Loadable(Protocol[L]):
    """A program, and what is made of its compiled file.

    without: what happens where there is no kernel, as a sentence
    """

    without: str

    @property
    def program(self) -> Program: ...

    def opened(self, path: Path) -> L:
        """The compiled kernel in this file. Raises Unloadable, NeedsAnotherCPU."""

    def worst_error(self, loaded: L, target: Target) -> float:
        """The relative error of a trial against float64; NaN when the kernel gives NaN."""


def best(kind: Loadable[L], settings: BuildSettings) -> tuple[L, Target] | Refusal:
    """The library for the best instructions with which it computes what it should."""
    reasons: list[str] = []
    for target in targets_here(settings.instructions, bfloat16=kind.program.bfloat16):
        try:
            loaded = _load(kind, target, settings)
        except BuildFailed as error:
            reasons.append(str(error))
            continue
        if reasons:
            logger.warning("The native kernel for %s uses only %s: %s", kind.program, target.name, reasons[0])
        return loaded, target
    logger.warning("No native kernel for %s: %s. %s", kind.program, reasons[0], kind.without)
    return Refusal(f"it could not be made ready ({reasons[0]}); it needs a C++ compiler, or GRADSMITH_KERNELS")


def tried(kind: Loadable[L], loaded: L, target: Target) -> L:
    """The library, after its trial. Raises BuildFailed when it computes something else."""
    error = kind.worst_error(loaded, target)
    if not error <= (_LARGEST_ERROR_BFLOAT16 if kind.program.bfloat16 else _LARGEST_ERROR):
        raise BuildFailed(f"the compiled {target.name} kernel is wrong by {error:.1e} on this CPU")
    return loaded


def _load(kind: Loadable[L], target: Target, settings: BuildSettings) -> L:
    try:
        ready = prebuilt(kind.program, target, settings)
        if ready is not None:
            return tried(kind, kind.opened(ready), target)
    except (NotPrebuilt, Unloadable) as lacking:
        try:
            compiled = _compiled(kind, target, settings)
        except BuildFailed as error:
            raise BuildFailed(f"{lacking}; and it cannot be compiled here: {error}") from error
        expected = isinstance(lacking, NotPrebuilt) and lacking.of_other_sizes
        logger.log(logging.INFO if expected else logging.WARNING, "%s; it was compiled here instead", lacking)
        return compiled
    return _compiled(kind, target, settings)


def _compiled(kind: Loadable[L], target: Target, settings: BuildSettings) -> L:
    try:
        loaded = kind.opened(built_here(kind.program, target, settings))
    except Unloadable:  # a disk that was full, a cache copied from elsewhere
        loaded = kind.opened(built_here(kind.program, target, settings, anew=True))
    return tried(kind, loaded, target)
