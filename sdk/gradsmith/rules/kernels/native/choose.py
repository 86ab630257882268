"""Which kernel a rule gets on this machine, or why none, and the one log line where it could not be compiled."""

from __future__ import annotations

import functools
import logging

import torch

from gradsmith.rules.base import Rule
from gradsmith.rules.configs import LSTMConfig
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.native.build import BuildFailed, BuildSettings, NotPrebuilt, built_here, prebuilt
from gradsmith.rules.kernels.native.kernel import NativeKernel
from gradsmith.rules.kernels.native.library import Library, Unloadable
from gradsmith.rules.kernels.native.targets import Target, targets_here
from gradsmith.rules.kernels.sizes import INPUTS, MOST_HIDDEN, MOST_LAYERS, Sizes
from gradsmith.rules.kernels.trial import worst_error
from gradsmith.rules.lstm import LSTMRule

logger = logging.getLogger(__name__)

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
    sizes = rule.settings.costs().sizes
    if sizes is None:
        return Refusal(f"it runs at most {MOST_LAYERS} layers of {MOST_HIDDEN} units")
    best = _best(sizes, settings)
    return best if isinstance(best, Refusal) else NativeKernel(rule, *best, threads=threads)


@functools.lru_cache(maxsize=64)
def _best(sizes: Sizes, settings: BuildSettings) -> tuple[Library, Target] | Refusal:
    reasons: list[str] = []
    for target in targets_here(settings.instructions):
        try:
            loaded = _load(sizes, target, settings)
        except BuildFailed as error:
            reasons.append(str(error))
            continue
        if reasons:
            logger.warning("The native kernel for %s uses only %s: %s", sizes, target.name, reasons[0])
        return loaded, target
    logger.warning("No native kernel for %s: %s. This rule runs through torch, more slowly.", sizes, reasons[0])
    return Refusal(f"it could not be made ready ({reasons[0]}); it needs a C++ compiler, or GRADSMITH_KERNELS")


def _load(sizes: Sizes, target: Target, settings: BuildSettings) -> Library:
    try:
        ready = prebuilt(sizes, target, settings)
        if ready is not None:
            return tried(Library(ready, sizes), sizes, target)
    except (NotPrebuilt, Unloadable) as lacking:
        try:
            compiled = _compiled(sizes, target, settings)
        except BuildFailed as error:
            raise BuildFailed(f"{lacking}; and it cannot be compiled here: {error}") from error
        logger.warning("%s; it was compiled here instead", lacking)
        return compiled
    return _compiled(sizes, target, settings)


def _compiled(sizes: Sizes, target: Target, settings: BuildSettings) -> Library:
    try:
        loaded = Library(built_here(sizes, target, settings), sizes)
    except Unloadable:  # a disk that was full, a cache copied from elsewhere
        loaded = Library(built_here(sizes, target, settings, anew=True), sizes)
    return tried(loaded, sizes, target)


def tried(loaded: Library, sizes: Sizes, target: Target) -> Library:
    """The library, after a trial on a block and a bit. Raises BuildFailed when it computes something else."""
    kind = {features: name for name, features in INPUTS.items()}[sizes.inputs]
    rule = LSTMRule(LSTMConfig(hidden_size=sizes.hidden, layers=sizes.layers, input=kind))
    error = worst_error(NativeKernel(rule, loaded, target), rule, loaded.block + 1, torch.device("cpu"))
    if not error <= _LARGEST_ERROR:
        raise BuildFailed(f"the compiled {target.name} kernel is wrong by {error:.1e} on this CPU")
    return loaded
