"""Plain PyTorch, as one would write it: two nn.LSTMCell, the optimizee's graph kept, one backward through it all."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.core.peers.base import Weights
from benchmarks.core.problem import (
    HIDDEN,
    HORIZON,
    IMAGE,
    LOG_SIGN_P,
    META_LEARNING_RATE,
    MLP_SIZES,
    OUTPUT_SCALE,
    Loaded,
)
from benchmarks.core.tasks import network

Memory = tuple[Tensor, Tensor, Tensor, Tensor]


class CoordinatewiseLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTMCell(2, HIDDEN)
        self.second = nn.LSTMCell(HIDDEN, HIDDEN)
        self.readout = nn.Linear(HIDDEN, 1)

    def forward(self, gradient: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        h1, c1, h2, c2 = memory
        h1, c1 = self.first(log_sign(gradient), (h1, c1))
        h2, c2 = self.second(h1, (h2, c2))
        return OUTPUT_SCALE * self.readout(h2).squeeze(-1), (h1, c1, h2, c2)


def log_sign(gradient: Tensor) -> Tensor:
    threshold = math.exp(-LOG_SIGN_P)
    size = gradient.abs()
    big = size >= threshold
    magnitude = torch.where(big, size.clamp_min(threshold).log() / LOG_SIGN_P, -torch.ones_like(size))
    direction = torch.where(big, gradient.sign(), gradient / threshold)
    return torch.stack([magnitude, direction], -1)


class PlainTorch:
    def __init__(self, loaded: Loaded, weights: Weights, threads: int) -> None:
        torch.set_num_threads(threads)
        self._loaded = loaded
        self._problem = loaded.problem
        self._start = torch.from_numpy(loaded["start"]).float()
        self._net = _net_with(weights)
        self._optimizer = torch.optim.Adam(self._net.parameters(), lr=META_LEARNING_RATE)
        self._loss = _loss_of(loaded)
        self.counted_losses = loaded.problem.unroll_steps
        self.about = {
            "name": "plain PyTorch",
            "versions": f"torch {torch.__version__}",
            "settings": "nn.LSTMCell, autograd.grad(retain_graph=True), backward, torch.optim.Adam",
        }

    def gradient(self) -> Weights:
        self.begin()
        self._window()
        first, second, readout = self._net.first, self._net.second, self._net.readout
        gradients = {
            "layers.0.weight": torch.cat([_grad(first.weight_ih), _grad(first.weight_hh)], 1),
            "layers.0.bias": _grad(first.bias_ih),
            "layers.1.weight": torch.cat([_grad(second.weight_ih), _grad(second.weight_hh)], 1),
            "layers.1.bias": _grad(second.bias_ih),
            "readout_weight": _grad(readout.weight)[0],
            "readout_bias": _grad(readout.bias),
        }
        self.begin()
        return {name: gradient.numpy().copy() for name, gradient in gradients.items()}

    def run(self, meta_steps: int) -> None:
        for _ in range(meta_steps):
            if self._step + self._problem.unroll_steps > HORIZON:
                self.begin()
            self._window()
            self._optimizer.step()

    def begin(self) -> None:
        self._step = 0
        self._memory: Memory = tuple(torch.zeros(self._problem.coordinates, HIDDEN) for _ in range(4))  # type: ignore[assignment]
        self._theta = self._start.clone().requires_grad_()
        (self._gradient,) = torch.autograd.grad(self._loss(self._theta, 0), self._theta)

    def _window(self) -> None:
        self._optimizer.zero_grad()
        theta, memory, gradient = self._theta, self._memory, self._gradient
        total = torch.zeros(())
        for step in range(self._step + 1, self._step + self._problem.unroll_steps + 1):
            update, memory = self._net(gradient.detach(), memory)
            theta = theta + update
            loss = self._loss(theta, step)
            (gradient,) = torch.autograd.grad(loss, theta, retain_graph=True)
            total = total + loss
        (total / self._problem.tasks).backward()
        self._step += self._problem.unroll_steps
        self._theta = theta.detach().requires_grad_()
        self._memory = tuple(tensor.detach() for tensor in memory)  # type: ignore[assignment]
        self._gradient = gradient


make = PlainTorch


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _net_with(weights: Weights) -> CoordinatewiseLSTM:
    net = CoordinatewiseLSTM()
    with torch.no_grad():
        for level, (cell, width) in enumerate(((net.first, 2), (net.second, HIDDEN))):
            weight = torch.from_numpy(weights[f"layers.{level}.weight"])
            cell.weight_ih.copy_(weight[:, :width])
            cell.weight_hh.copy_(weight[:, width:])
            cell.bias_ih.copy_(torch.from_numpy(weights[f"layers.{level}.bias"]))
            cell.bias_hh.zero_()  # torch has two biases for one
        net.readout.weight.copy_(torch.from_numpy(weights["readout_weight"])[None])
        net.readout.bias.copy_(torch.from_numpy(weights["readout_bias"]))
    return net


class _loss_of:  # noqa: N801 - a function with its tensors
    """(theta (coordinates,), step) -> the sum of the tasks' losses."""

    def __init__(self, loaded: Loaded) -> None:
        self._kind = loaded.problem.kind
        if self._kind == "quadratics":
            self._W = torch.from_numpy(loaded["W"]).float()
            self._y = torch.from_numpy(loaded["y"]).float()
        else:
            self._images = torch.from_numpy(loaded["pixels"]).float() / 255
            self._labels = torch.from_numpy(loaded["labels"]).long()
            self._rows = torch.from_numpy(loaded["rows"]).long()

    def __call__(self, theta: Tensor, step: int) -> Tensor:
        if self._kind == "quadratics":
            return (torch.bmm(self._W, theta.view(-1, 10, 1)).squeeze(-1) - self._y).square().sum()
        rows = self._rows[step]
        inputs, labels = self._images[rows], self._labels[rows]
        if self._kind == "convnet":
            return functional.cross_entropy(network(theta, inputs.view(-1, *IMAGE)), labels)
        n, hidden, classes = MLP_SIZES
        w1, b1, w2, b2 = theta.split([n * hidden, hidden, hidden * classes, classes])
        signal = torch.sigmoid(torch.addmm(b1, inputs, w1.view(n, hidden)))
        return functional.cross_entropy(torch.addmm(b2, signal, w2.view(hidden, classes)), labels)
