"""The truth that peers are checked against: the first window's meta-gradient by autograd in float64."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch

from benchmarks.core.peers.base import Weights
from benchmarks.core.peers.ours import named, rule_with
from benchmarks.core.problem import Problem
from benchmarks.core.statistics import badness
from benchmarks.core.tasks import batch_of
from gradsmith.rules import LSTMRule
from gradsmith.rules.configs import LSTMConfig
from models.backends import TorchBackend
from models.unroll import begin, unroll_window

TOLERANCE = 1e-3
"""Largest difference over largest value, for each weight tensor. A float32 trajectory of twenty steps drifts from the
float64 one (most in the convnet, through its ReLUs), so this is wider than what one backend owes another on equal
inputs, 1e-5, which the tests check."""


def starting_weights() -> Weights:
    """The rule that every peer begins with."""
    rule = LSTMRule(LSTMConfig(forget_bias=0.0))
    rule.initialise(torch.Generator().manual_seed(1))
    return {name: value.numpy().copy() for name, value in rule.state_dict().items()}


@cache
def meta_gradient(problem: Problem, counted_losses: int) -> Weights:
    """The meta-gradient at `starting_weights`: losses at theta_1 .. theta_counted summed, tasks averaged."""
    rule = rule_with(starting_weights(), torch.float64)
    tasks = batch_of(problem, torch.float64)
    backend = TorchBackend(rule, fused=False)
    window, _ = unroll_window(tasks, begin(tasks, backend), counted_losses, backend)
    return named(rule, window.gradient)


def difference(found: Weights, truth: Weights) -> float:
    """The largest, over the weight tensors, of max |found - truth| / max |truth|; NaN where one has a NaN."""
    if found.keys() != truth.keys():
        raise ValueError(f"the peer gave gradients of {sorted(found)}, the reference has {sorted(truth)}")
    each = [float(np.abs(found[name] - truth[name]).max() / np.abs(truth[name]).max()) for name in truth]
    return max(each, key=badness)


def save(weights: Weights, path: Path) -> None:
    np.savez(path, **weights)  # type: ignore[arg-type]
