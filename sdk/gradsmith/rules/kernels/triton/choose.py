"""Which Triton kernel a rule gets on this CUDA device, if any, and the one log line where there is none."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeVar, cast

import torch

from gradsmith.rules.base import Rule
from gradsmith.rules.configs import HyperConfig, LSTMConfig, MLPConfig
from gradsmith.rules.hyper import HyperRule
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.trial import worst_error
from gradsmith.rules.kernels.triton.layout import MOST_HIDDEN, MOST_LAYERS, Layout
from gradsmith.rules.kernels.triton.tensors import refused
from gradsmith.rules.lstm import LSTMRule
from gradsmith.rules.mlp import MLPRule

if TYPE_CHECKING:
    from gradsmith.rules.kernels.triton.kernel import TritonKernel
    from gradsmith.rules.kernels.triton.tensor_kernel import TritonTensorKernel

K = TypeVar("K")

logger = logging.getLogger(__name__)

Choice = Literal["auto", "off", "bf16"]
CHOICES = ("auto", "off", "bf16")

# In the trial against float64; a right kernel is ten times better.
_LARGEST_ERROR = {"float32": 1e-4, "bf16": 5e-2}


def choice_from_environment(environ: Mapping[str, str] | None = None) -> Choice:
    """GRADSMITH_TRITON: auto (default), off, or bf16. Raises ValueError for another."""
    env = os.environ if environ is None else environ
    choice = env.get("GRADSMITH_TRITON", "").strip().lower() or "auto"
    if choice not in CHOICES:
        raise ValueError(f"GRADSMITH_TRITON is {choice!r}; choose one of {', '.join(CHOICES)}")
    return cast(Choice, choice)


def triton_kernel(rule: Rule, device: torch.device, *, choice: Choice | None = None) -> TritonKernel | Refusal:
    """The kernel for rules of this configuration on `device`, or why there is none: another kind of rule, sizes beyond
    the programs', GRADSMITH_TRITON=off, no Triton, or a card that it does not serve. In the last two cases a process
    logs one line.

    Compiles on first use (half a minute for a configuration), later loads from Triton's cache. A kernel is tried
    against the rule in float64 before it is handed out. choice: default, the environment.
    Raises ValueError when GRADSMITH_TRITON is not one of its choices.
    """
    choice = choice_from_environment() if choice is None else choice
    if choice == "off":
        return Refusal("it is turned off here (GRADSMITH_TRITON=off)")
    if not isinstance(rule, LSTMRule):
        return Refusal(f"it runs rules of kind {LSTMRule.kind} alone")
    if rule.settings.averaging:
        return Refusal("its coordinates do not see each other, and the rule has global averaging cells")
    if not rule.settings.as_published:
        return Refusal("it runs the inputs log_sign and raw alone, and the linear head")
    if Layout.of(rule) is None:
        return Refusal(f"it runs at most {MOST_LAYERS} layers of {MOST_HIDDEN} units")
    precision: Literal["bf16", "float32"] = "bf16" if choice == "bf16" else "float32"
    return _tried(replace(rule.settings, forget_bias=0.0), _indexed(device), precision)


def triton_tensor_kernel(
    rule: Rule, device: torch.device, *, choice: Choice | None = None
) -> TritonTensorKernel | Refusal:
    """The kernel for steps of hyper and mlp rules of this configuration on `device`, or why there is none; as
    `triton_kernel`, always in float32. It steps alone: windows are differentiated through torch."""
    choice = choice_from_environment() if choice is None else choice
    if choice == "off":
        return Refusal("it is turned off here (GRADSMITH_TRITON=off)")
    problem = refused(rule)
    if problem is not None:
        return Refusal(problem)
    assert isinstance(rule, HyperRule | MLPRule), "`refused` has looked"
    return _tried_for_tensors(rule.settings, _indexed(device))


@functools.lru_cache(maxsize=64)
def _tried(settings: LSTMConfig, device: torch.device, precision: Literal["float32", "bf16"]) -> TritonKernel | Refusal:
    def made() -> tuple[TritonKernel, float]:
        from gradsmith.rules.kernels.triton.kernel import TritonKernel

        rule = LSTMRule(settings)
        kernel = TritonKernel(rule, device, precision=precision)
        return kernel, worst_error(kernel, rule, kernel.block + 1, device)

    return _checked(made, _LARGEST_ERROR[precision], device)


@functools.lru_cache(maxsize=64)
def _tried_for_tensors(settings: HyperConfig | MLPConfig, device: torch.device) -> TritonTensorKernel | Refusal:
    def made() -> tuple[TritonTensorKernel, float]:
        from gradsmith.rules.kernels.triton import tensor_trial
        from gradsmith.rules.kernels.triton.tensor_kernel import TritonTensorKernel

        rule = HyperRule(settings) if isinstance(settings, HyperConfig) else MLPRule(settings)
        kernel = TritonTensorKernel(rule, device)
        return kernel, tensor_trial.worst_error(kernel, rule)

    return _checked(made, _LARGEST_ERROR["float32"], device)


def _checked(made: Callable[[], tuple[K, float]], allowed: float, device: torch.device) -> K | Refusal:
    """The kernel that is made, unless it fails or its error is larger."""
    if not _importable():
        return Refusal("the package triton cannot be imported here")
    try:
        kernel, error = made()
    except Exception as problem:  # noqa: BLE001  a compiler and a driver fail in any way; torch can do the work
        said = (str(problem).strip().splitlines() or ["no message"])[-1][:300]
        logger.warning(
            "No Triton kernel on %s (%s: %s). This rule runs through torch, more slowly.",
            *(device, type(problem).__name__, said),
        )
        return Refusal(f"it could not be made ready on {device} ({type(problem).__name__}: {said})")
    if not error <= allowed:
        logger.warning(
            "The Triton kernel is wrong by %.1e on %s. This rule runs through torch, more slowly.", error, device
        )
        return Refusal(f"it is wrong by {error:.1e} on {device}")
    return kernel


def _indexed(device: torch.device) -> torch.device:
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


@functools.lru_cache(maxsize=1)
def _importable() -> bool:
    try:
        import triton  # noqa: F401
    except ImportError as error:
        logger.warning(
            "Triton cannot be imported (%s); rules run through torch on this GPU, several times more slowly. PyTorch's "
            "CUDA builds for Linux bring it: pip install triton.",
            error,
        )
        return False
    return True
