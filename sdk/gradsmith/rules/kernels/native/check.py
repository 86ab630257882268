"""Whether kernels compiled beforehand serve here, and whether others can be compiled: for images and for `doctor`."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from gradsmith.rules.kernels.native.build import (
    BuildFailed,
    BuildSettings,
    compiler_version,
    find_compiler,
    prebuilt,
)
from gradsmith.rules.kernels.native.choose import AnyProgram, Loaded
from gradsmith.rules.kernels.native.library import NeedsAnotherCPU
from gradsmith.rules.kernels.native.loading import tried
from gradsmith.rules.kernels.native.targets import targets_here, targets_of


@dataclass(frozen=True)
class Checked:
    """One thing that was looked at, and what was found. serves: whether workers can do with it what it is for."""

    what: str
    found: str
    serves: bool


def check_prebuilt(
    rules: Iterable[AnyProgram], settings: BuildSettings, instructions: Collection[str] = ()
) -> Iterator[Checked]:
    """Each kernel that the folder of `settings` should have: one that this CPU runs is run against the rule, any other
    is loaded, because the machine that builds an image is not the one that uses it.

    instructions: names of targets; default: all that this kind of machine has
    """
    for program in rules:
        here = targets_here(bfloat16=program.bfloat16)
        for target in targets_of(platform.machine(), bfloat16=program.bfloat16):
            if instructions and target.name not in instructions:
                continue
            found, serves = "runs, and computes what the rule says", True
            try:
                path = prebuilt(program, target, settings)
                if path is None:
                    raise BuildFailed("no folder is named: set GRADSMITH_KERNELS, or name one")
                loaded = Loaded(program).opened(path)
                if target in here:
                    tried(Loaded(program), loaded, target)
                else:
                    found = "loads; torch does not use these instructions here, so it was not run"
            except NeedsAnotherCPU:
                found = "loads; this CPU lacks its instructions, so it was not run"
            except BuildFailed as error:
                found, serves = str(error), False
            yield Checked(f"{program} {target.name}", found, serves)


def check_compiler(settings: BuildSettings) -> Checked:
    """Whether kernels of other sizes can be compiled when a job first wants them. Compiles nothing."""
    what = "other sizes"
    try:
        compiler = find_compiler(settings)
        compiler_version(compiler)
    except BuildFailed as error:
        return Checked(what, str(error), serves=False)
    cache = settings.cache
    nearest = next((place for place in (cache, *cache.parents) if os.path.lexists(place)), cache)
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        found = f"the folder {cache} for compiled kernels cannot be written; set GRADSMITH_CACHE_DIR to one that can"
        return Checked(what, found, serves=False)
    return Checked(what, f"{compiler} compiles them when they are first wanted, into {cache}", serves=True)


def check(
    rules: Iterable[AnyProgram], settings: BuildSettings, instructions: Collection[str] = (), *, others: bool = True
) -> Iterator[Checked]:
    """All of this. others: whether rules of other sizes shall be served as well."""
    yield from check_prebuilt(rules, replace(settings, instructions="auto"), instructions)
    if others:
        yield check_compiler(settings)
