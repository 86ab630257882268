"""Plain PyTorch for exact meta-gradients: one graph of the whole window, optimizee included, by `create_graph`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.core.peers.base import Weights
from benchmarks.core.peers.exact_rules import ExactRule, Library, State
from benchmarks.core.problem import HORIZON, META_LEARNING_RATE, SIZES, Loaded


def _column(numbers: object) -> Tensor:
    return torch.tensor(numbers)[:, None, None]


LIBRARY = Library(torch, Tensor.detach, functional.elu, _column)


class PlainTorchExact:
    def __init__(self, loaded: Loaded, weights: Weights, threads: int) -> None:
        torch.set_num_threads(threads)
        self._problem = loaded.problem
        self._rule = ExactRule(LIBRARY, loaded.problem.rule, loaded.problem.tensors)
        self._start = torch.from_numpy(loaded["start"]).float().view(loaded.problem.tasks, -1)
        self._weights = {name: torch.from_numpy(value).clone().requires_grad_() for name, value in weights.items()}
        self._optimizer = torch.optim.Adam(self._weights.values(), lr=META_LEARNING_RATE)
        self._loss = _loss_of(loaded)
        self.counted_losses = loaded.problem.unroll_steps
        self.about = {
            "name": "plain PyTorch, exact",
            "versions": f"torch {torch.__version__}",
            "settings": "autograd.grad(create_graph=True) of every step, one backward through all, torch.optim.Adam",
        }

    def gradient(self) -> Weights:
        self.begin()
        self._window()
        self.begin()
        return {name: _grad(weight).numpy().copy() for name, weight in self._weights.items()}

    def run(self, meta_steps: int) -> None:
        for _ in range(meta_steps):
            if self._step + self._problem.unroll_steps > HORIZON:
                self.begin()
            self._window()
            self._optimizer.step()

    def begin(self) -> None:
        self._step = 0
        problem = self._problem
        self._state = State.zero(torch.zeros, problem.tasks, problem.coordinates_per_task, len(problem.tensors))
        self._theta = self._start.clone().requires_grad_()
        (self._gradient,) = torch.autograd.grad(self._loss(self._theta, 0), self._theta)

    def _window(self) -> None:
        self._optimizer.zero_grad()
        theta, state, gradient = self._theta, self._state, self._gradient
        total = torch.zeros(())
        for step in range(self._step + 1, self._step + self._problem.unroll_steps + 1):
            update, state = self._rule.update(self._weights, gradient, state, torch.tensor(float(step)))
            theta = theta + update
            loss = self._loss(theta, step)
            (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
            total = total + loss
        (total / self._problem.tasks).backward()
        self._step += self._problem.unroll_steps
        self._theta, self._gradient = theta.detach().requires_grad_(), gradient.detach()
        self._state = State(*map(Tensor.detach, state.tuple()))


make = PlainTorchExact


def _grad(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad


class _loss_of:  # noqa: N801 - a function with its tensors
    """(theta (tasks, n), step) -> the sum of the tasks' losses."""

    def __init__(self, loaded: Loaded) -> None:
        self._problem = loaded.problem
        if self._problem.kind == "quadratics":
            self._W = torch.from_numpy(loaded["W"]).float()
            self._y = torch.from_numpy(loaded["y"]).float()
        else:
            self._images = torch.from_numpy(loaded["pixels"]).float() / 255
            self._labels = torch.from_numpy(loaded["labels"]).long()
            self._rows = torch.from_numpy(loaded["rows"]).long().view(HORIZON + 1, self._problem.tasks, -1)

    def __call__(self, theta: Tensor, step: int) -> Tensor:
        if self._problem.kind == "quadratics":
            return (torch.bmm(self._W, theta[..., None]).squeeze(-1) - self._y).square().sum()
        rows = self._rows[step]  # (tasks, batch)
        n, hidden, classes = SIZES[self._problem.kind]
        w1, b1, w2, b2 = theta.split([n * hidden, hidden, hidden * classes, classes], dim=1)
        signal = torch.sigmoid(torch.baddbmm(b1[:, None], self._images[rows], w1.view(-1, n, hidden)))
        logits = torch.baddbmm(b2[:, None], signal, w2.view(-1, hidden, classes))
        mean = functional.cross_entropy(logits.flatten(0, 1), self._labels[rows].flatten())
        return mean * self._problem.tasks
