"""Which kernel a rule gets on this machine, or why none."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import torch

from gradsmith.rules.base import Rule
from gradsmith.rules.configs import HyperConfig, LSTMConfig, MLPConfig
from gradsmith.rules.hyper import HyperRule
from gradsmith.rules.kernels import trial
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.native import tensor_trial
from gradsmith.rules.kernels.native.build import BuildSettings
from gradsmith.rules.kernels.native.kernel import NativeKernel
from gradsmith.rules.kernels.native.library import Library
from gradsmith.rules.kernels.native.loading import best
from gradsmith.rules.kernels.native.targets import Target
from gradsmith.rules.kernels.native.tensor_kernel import TensorKernel
from gradsmith.rules.kernels.native.tensor_library import TensorLibrary
from gradsmith.rules.kernels.sizes import INPUTS, MOST_HIDDEN, MOST_LAYERS, HyperProgram, MLPProgram, Sizes
from gradsmith.rules.kernels.tensor_truth import KernelRule
from gradsmith.rules.lstm import LSTMRule
from gradsmith.rules.mlp import MLPRule

AnyProgram: TypeAlias = Sizes | HyperProgram | MLPProgram
AnyLibrary: TypeAlias = Library | TensorLibrary


def native_kernel(
    rule: Rule, *, threads: int = 1, settings: BuildSettings | None = None, bfloat16: bool = False
) -> NativeKernel | Refusal:
    """The kernel for rules of this configuration, or why there is none: another kind of rule, sizes beyond the
    kernel's, GRADSMITH_NATIVE=off, or no way to compile it. In the last case a process logs one line.

    Compiles on first use (seconds), later loads from the cache (milliseconds). A kernel is tried against the rule in
    float64 before it is handed out. settings: default, the environment. bfloat16: products with factors in bfloat16.
    Raises ValueError when GRADSMITH_NATIVE is not one of its choices.
    """
    settings = BuildSettings.from_environment() if settings is None else settings
    if settings.instructions == "off":
        return Refusal("it is turned off here (GRADSMITH_NATIVE=off)")
    if not isinstance(rule, LSTMRule):
        return Refusal(f"it runs rules of kind {LSTMRule.kind} alone")
    if rule.settings.averaging:
        return Refusal("its coordinates do not see each other, and the rule has global averaging cells")
    if not rule.settings.as_published:
        return Refusal("it runs the inputs log_sign and raw alone, and the linear head")
    sizes = rule.settings.costs().sizes
    if sizes is None:
        return Refusal(f"it runs at most {MOST_LAYERS} layers of {MOST_HIDDEN} units")
    found = _best(replace(sizes, bfloat16=bfloat16), settings)
    if isinstance(found, Refusal):
        return found
    library, target = found
    assert isinstance(library, Library)
    return NativeKernel(rule, library, target, threads=threads)


def tensor_kernel(rule: Rule, *, threads: int = 1, settings: BuildSettings | None = None) -> TensorKernel | Refusal:
    """The kernel for hyper and mlp rules of this configuration, or why there is none; as `native_kernel`."""
    settings = BuildSettings.from_environment() if settings is None else settings
    if settings.instructions == "off":
        return Refusal("it is turned off here (GRADSMITH_NATIVE=off)")
    if not isinstance(rule, HyperRule | MLPRule):
        return Refusal(f"it runs rules of the kinds {HyperRule.kind} and {MLPRule.kind} alone")
    program = rule.settings.program
    if program is None:
        return Refusal(
            f"it runs mlp rules of at most {MOST_HIDDEN} units that look at tensors, with inputs from "
            f"{', '.join(MLPProgram.known)} alone"
        )
    found = _best(program, settings)
    if isinstance(found, Refusal):
        return found
    library, target = found
    assert isinstance(library, TensorLibrary)
    return TensorKernel(rule, library, target, threads=threads)


@functools.lru_cache(maxsize=64)
def _best(program: AnyProgram, settings: BuildSettings) -> tuple[AnyLibrary, Target] | Refusal:
    return best(Loaded(program), settings)


@dataclass(frozen=True)
class Loaded:
    """How a rule's program is opened and tried."""

    program: AnyProgram
    without = "This rule runs through torch, more slowly."

    def opened(self, path: Path) -> AnyLibrary:
        """The compiled kernel in this file. Raises Unloadable, NeedsAnotherCPU."""
        return Library(path, self.program) if isinstance(self.program, Sizes) else TensorLibrary(path)

    def worst_error(self, loaded: AnyLibrary, target: Target) -> float:
        """The error of a trial on a block and a bit."""
        if isinstance(self.program, Sizes):
            assert isinstance(loaded, Library)
            kind = {features: name for name, features in INPUTS.items()}[self.program.inputs]
            lstm = LSTMRule(LSTMConfig(hidden_size=self.program.hidden, layers=self.program.layers, input=kind))
            kernel = NativeKernel(lstm, loaded, target)
            return trial.worst_error(kernel, lstm, loaded.block + 1, torch.device("cpu"))
        assert isinstance(loaded, TensorLibrary)
        rule = _rule_of(self.program)
        return tensor_trial.worst_error(TensorKernel(rule, loaded, target), rule)


def _rule_of(program: HyperProgram | MLPProgram) -> KernelRule:
    """A rule that this kernel runs."""
    if isinstance(program, HyperProgram):
        clock, direction = "time+fraction" if program.fraction else "time", "muon" if program.muon else "adam"
        return HyperRule(HyperConfig(clock=clock, direction=direction))
    return MLPRule(MLPConfig(hidden_size=program.hidden, layers=program.layers, input=program.input))
