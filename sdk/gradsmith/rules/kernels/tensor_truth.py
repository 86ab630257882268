"""What kernels of rules that look at tensors are held to: the rules in float64, through autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from gradsmith.rules.base import Segments
from gradsmith.rules.hyper import HyperRule
from gradsmith.rules.mlp import MLPRule

KernelRule = HyperRule | MLPRule
"""Rules that such a kernel runs."""

PLANNED = 5
"""Steps that a rule is told to expect, where it asks."""


def drawn(rule: KernelRule, seed: int) -> KernelRule:
    """A rule of the same configuration in float64, with weights that are nowhere zero."""
    generator = torch.Generator("cpu").manual_seed(seed)
    truth = (HyperRule(rule.settings) if isinstance(rule, HyperRule) else MLPRule(rule.settings)).double()
    for parameter in truth.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float32) / 5)
    return truth


def by_autograd(rule: KernelRule, segments: Segments, G: Tensor, D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """theta after the steps from zero, and d/dG and d/d(weights), flat, of the sum of <D[t], update_t>."""
    G = G.clone().requires_grad_()
    state = rule.plan(rule.initial_state(segments.coordinates, tensors=segments.rows, dtype=G.dtype), PLANNED)
    theta, total = torch.zeros_like(G[0]), torch.zeros((), dtype=G.dtype)
    for gradient, weight in zip(G, D, strict=True):
        update, state = rule(gradient, state, segments)
        theta, total = theta + update, total + update @ weight
    of_gradients, *pieces = torch.autograd.grad(total, [G, *rule.parameters()])
    return theta.detach(), of_gradients, torch.cat([piece.reshape(-1) for piece in pieces])
