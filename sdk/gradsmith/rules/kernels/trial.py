"""A kernel is tried against the rule before it is handed out: compilers have bugs, and not every processor was there
when a kernel was written."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from gradsmith.rules.lstm import LSTMRule


class Kernel(Protocol):
    """What a fused kernel of the LSTM rule offers; `weights` and the state are in layouts of its own."""

    def weights(self, rule: LSTMRule) -> Tensor: ...
    def initial_state(self, coordinates: int) -> Tensor: ...
    def step(self, weights: Tensor, theta: Tensor, gradient: Tensor, state: Tensor) -> None: ...
    def window_gradient(self, weights: Tensor, snapshot: Tensor, G: Tensor, D: Tensor) -> Tensor: ...


def worst_error(kernel: Kernel, rule: LSTMRule, coordinates: int, device: torch.device) -> float:
    """The larger of two errors of two steps, theta's and the weights' gradient's, against a rule of the same
    configuration in float64: largest difference over largest value. NaN when the kernel gives NaN."""
    generator = torch.Generator("cpu").manual_seed(0)
    # The caller may be within autocast or under another default device: neither changes what is right.
    with torch.enable_grad(), torch.autocast("cpu", enabled=False), torch.device("cpu"):
        truth = LSTMRule(rule.settings).double()
        for parameter in truth.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            parameter.data.copy_(drawn * truth.hidden_size**-0.5)
        G, D = torch.randn(2, 2, coordinates, generator=generator, dtype=torch.float32)
        state = truth.initial_state(coordinates, dtype=torch.float64)
        moved, loss = torch.zeros(coordinates, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for gradient, weight in zip(G.double(), D.double(), strict=True):
            update, state = truth(gradient, state)
            moved, loss = moved + update, loss + update @ weight
        # Of a scalar: for several outputs torch imports sympy, which takes a second.
        pieces = torch.autograd.grad(loss, list(truth.parameters()))
    G, D = G.to(device), D.to(device)
    weights, theta, memory = kernel.weights(truth), torch.zeros_like(G[0]), kernel.initial_state(coordinates)
    snapshot = memory.clone()
    for gradient in G:
        kernel.step(weights, theta, gradient, memory)
    found = kernel.window_gradient(weights, snapshot, G, D)
    return max(_error(theta, moved.detach()), _error(found, torch.cat([piece.reshape(-1) for piece in pieces])))


def _error(found: Tensor, truth: Tensor) -> float:
    return ((found.cpu().double() - truth).abs().max() / truth.abs().max()).item()
