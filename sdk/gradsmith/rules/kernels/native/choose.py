"""Which kernel a rule gets on this machine, or why none, and the one log line where it could not be compiled."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TypeAlias

import torch

from gradsmith.rules.base import Rule
from gradsmith.rules.configs import LSTMConfig
from gradsmith.rules.hyper import HyperRule
from gradsmith.rules.kernels import trial
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.native import hyper_trial
from gradsmith.rules.kernels.native.build import BuildFailed, BuildSettings, NotPrebuilt, built_here, prebuilt
from gradsmith.rules.kernels.native.hyper_kernel import HyperKernel
from gradsmith.rules.kernels.native.hyper_library import HyperLibrary
from gradsmith.rules.kernels.native.kernel import NativeKernel
from gradsmith.rules.kernels.native.library import Library, Unloadable
from gradsmith.rules.kernels.native.targets import Target, targets_here
from gradsmith.rules.kernels.sizes import INPUTS, MOST_HIDDEN, MOST_LAYERS, HyperProgram, Sizes
from gradsmith.rules.lstm import LSTMRule

logger = logging.getLogger(__name__)

AnyProgram: TypeAlias = Sizes | HyperProgram
AnyLibrary: TypeAlias = Library | HyperLibrary

_LARGEST_ERROR = 1e-4  # of float32 against float64 in the trial; a right kernel is a hundred times better


def native_kernel(rule: Rule, *, threads: int = 1, settings: BuildSettings | None = None) -> NativeKernel | Refusal:
    """The kernel for rules of this configuration, or why there is none: another kind of rule, sizes beyond the
    kernel's, GRADSMITH_NATIVE=off, or no way to compile it. In the last case a process logs one line.

    Compiles on first use (seconds), later loads from the cache (milliseconds). A kernel is tried against the rule in
    float64 before it is handed out. settings: default, the environment.
    Raises ValueError when GRADSMITH_NATIVE is not one of its choices.
    """
    settings = BuildSettings.from_environment() if settings is None else settings
    if settings.instructions == "off":
        return Refusal("it is turned off here (GRADSMITH_NATIVE=off)")
    if not isinstance(rule, LSTMRule):
        return Refusal(f"it runs rules of kind {LSTMRule.kind} alone")
    if not rule.settings.as_published:
        return Refusal("it runs the inputs log_sign and raw alone, and the linear head")
    sizes = rule.settings.costs().sizes
    if sizes is None:
        return Refusal(f"it runs at most {MOST_LAYERS} layers of {MOST_HIDDEN} units")
    best = _best(sizes, settings)
    if isinstance(best, Refusal):
        return best
    library, target = best
    assert isinstance(library, Library)
    return NativeKernel(rule, library, target, threads=threads)


def hyper_kernel(rule: HyperRule, *, threads: int = 1, settings: BuildSettings | None = None) -> HyperKernel | Refusal:
    """The kernel for hyper rules of this configuration, or why there is none; as `native_kernel`."""
    settings = BuildSettings.from_environment() if settings is None else settings
    if settings.instructions == "off":
        return Refusal("it is turned off here (GRADSMITH_NATIVE=off)")
    if rule.settings.knows_steps:
        return Refusal("of the clocks of hyper rules it has time alone, and time+fraction is torch's")
    best = _best(HyperProgram(), settings)
    if isinstance(best, Refusal):
        return best
    library, target = best
    assert isinstance(library, HyperLibrary)
    return HyperKernel(rule, library, target, threads=threads)


@functools.lru_cache(maxsize=64)
def _best(program: AnyProgram, settings: BuildSettings) -> tuple[AnyLibrary, Target] | Refusal:
    reasons: list[str] = []
    for target in targets_here(settings.instructions):
        try:
            loaded = _load(program, target, settings)
        except BuildFailed as error:
            reasons.append(str(error))
            continue
        if reasons:
            logger.warning("The native kernel for %s uses only %s: %s", program, target.name, reasons[0])
        return loaded, target
    logger.warning("No native kernel for %s: %s. This rule runs through torch, more slowly.", program, reasons[0])
    return Refusal(f"it could not be made ready ({reasons[0]}); it needs a C++ compiler, or GRADSMITH_KERNELS")


def _load(program: AnyProgram, target: Target, settings: BuildSettings) -> AnyLibrary:
    try:
        ready = prebuilt(program, target, settings)
        if ready is not None:
            return tried(opened(ready, program), program, target)
    except (NotPrebuilt, Unloadable) as lacking:
        try:
            compiled = _compiled(program, target, settings)
        except BuildFailed as error:
            raise BuildFailed(f"{lacking}; and it cannot be compiled here: {error}") from error
        expected = isinstance(lacking, NotPrebuilt) and lacking.of_other_sizes
        logger.log(logging.INFO if expected else logging.WARNING, "%s; it was compiled here instead", lacking)
        return compiled
    return _compiled(program, target, settings)


def _compiled(program: AnyProgram, target: Target, settings: BuildSettings) -> AnyLibrary:
    try:
        loaded = opened(built_here(program, target, settings), program)
    except Unloadable:  # a disk that was full, a cache copied from elsewhere
        loaded = opened(built_here(program, target, settings, anew=True), program)
    return tried(loaded, program, target)


def opened(path: Path, program: AnyProgram) -> AnyLibrary:
    """The compiled kernel in this file. Raises Unloadable, NeedsAnotherCPU."""
    return HyperLibrary(path) if isinstance(program, HyperProgram) else Library(path, program)


def tried(loaded: AnyLibrary, program: AnyProgram, target: Target) -> AnyLibrary:
    """The library, after a trial on a block and a bit. Raises BuildFailed when it computes something else."""
    if isinstance(loaded, HyperLibrary):
        rule = HyperRule()
        error = hyper_trial.worst_error(HyperKernel(rule, loaded, target), rule)
    else:
        assert isinstance(program, Sizes)
        kind = {features: name for name, features in INPUTS.items()}[program.inputs]
        lstm = LSTMRule(LSTMConfig(hidden_size=program.hidden, layers=program.layers, input=kind))
        error = trial.worst_error(NativeKernel(lstm, loaded, target), lstm, loaded.block + 1, torch.device("cpu"))
    if not error <= _LARGEST_ERROR:
        raise BuildFailed(f"the compiled {target.name} kernel is wrong by {error:.1e} on this CPU")
    return loaded
