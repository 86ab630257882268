"""The truth that peers are checked against: the first window's meta-gradient by autograd in float64."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from benchmarks.core.peers.base import Weights
from benchmarks.core.peers.ours import named, rule_with
from benchmarks.core.problem import Problem
from benchmarks.core.statistics import badness
from benchmarks.core.tasks import batch_of
from gradsmith.rules import LSTMRule, Rule, Segments, build
from gradsmith.rules.configs import LSTMConfig
from models.backends import TorchBackend
from models.tasks.base import TaskBatch
from models.unroll import begin, unroll_window

READOUT_STD = 0.03

TOLERANCE = 1e-3
"""Largest difference over largest value, for each weight tensor. A float32 trajectory of twenty steps drifts from the
float64 one (most in the convnet, through its ReLUs), so this is wider than what one backend owes another on equal
inputs, 1e-5, which the tests check."""


def starting_weights(kind: str = "lstm") -> Weights:
    """The rule that every peer begins with. The read-out of a fresh hyper or mlp rule ignores what is below it, so here
    it is drawn too."""
    generator = torch.Generator().manual_seed(1)
    rule = LSTMRule(LSTMConfig(forget_bias=0.0)) if kind == "lstm" else build({"kind": kind})
    rule.initialise(generator)
    if kind != "lstm":
        readout = rule.get_parameter("readout.weight").detach()
        readout.copy_(READOUT_STD * torch.randn(readout.shape, generator=generator))
    return {name: value.numpy().copy() for name, value in rule.state_dict().items()}


@cache
def meta_gradient(problem: Problem, counted_losses: int) -> Weights:
    """The meta-gradient at `starting_weights`: losses at theta_1 .. theta_counted summed, tasks averaged."""
    rule = rule_with(starting_weights(problem.rule), torch.float64, problem.rule)
    tasks = batch_of(problem, torch.float64)
    if problem.exact:
        return named(rule, _through_everything(rule, tasks, problem, counted_losses))
    backend = TorchBackend(rule, fused=False)
    window, _ = unroll_window(tasks, begin(tasks, backend), counted_losses, backend)
    return named(rule, window.gradient)


def _through_everything(rule: Rule, tasks: TaskBatch, problem: Problem, steps: int) -> Tensor:
    """The exact meta-gradient by one graph of the whole window, second derivatives of the tasks included."""
    segments = Segments(problem.tensors, problem.tasks)
    theta = tasks.initial().requires_grad_()
    (gradient,) = torch.autograd.grad(tasks.losses(theta, 0).sum(), theta)
    state = rule.initial_state(tasks.coordinates, tensors=segments.rows, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for step in range(1, steps + 1):
        update, state = rule(gradient, state, segments)
        theta = theta + update
        losses = tasks.losses(theta, step).sum()
        (gradient,) = torch.autograd.grad(losses, theta, create_graph=True)
        total = total + losses / tasks.tasks
    return parameters_to_vector(torch.autograd.grad(total, tuple(rule.parameters())))


def difference(found: Weights, truth: Weights) -> float:
    """The largest, over the weight tensors, of max |found - truth| / max |truth|; NaN where one has a NaN."""
    if found.keys() != truth.keys():
        raise ValueError(f"the peer gave gradients of {sorted(found)}, the reference has {sorted(truth)}")
    each = [float(np.abs(found[name] - truth[name]).max() / np.abs(truth[name]).max()) for name in truth]
    return max(each, key=badness)


def save(weights: Weights, path: Path) -> None:
    np.savez(path, **weights)  # type: ignore[arg-type]
