"""The same problems as a user has them in a PyTorch program, and the ordinary loop that trains them."""

from __future__ import annotations

import csv
import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits, load_wine
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from benchmarks.core.environment import ROOT

SEEN, SECONDS = 16, 5
"""Angles of the pendulum that are seen, and within how many seconds."""
LAST = 5
"""Steps whose mean loss counts, as in an evaluation."""
_L2 = 0.01
Place = Path | None
Optimizers = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Fit:
    """One task: what is moved, and the loss of a step."""

    parameters: list[nn.Parameter]
    loss: Callable[[], Tensor]


def trained(fit: Fit, optimizers: Optimizers, steps: int) -> float:
    """The mean loss of the last steps. The parameters are as before when it returns."""
    began = [each.detach().clone() for each in fit.parameters]
    optimizer = optimizers(fit.parameters)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = fit.loss()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    losses.append(float(fit.loss().detach()))
    with torch.no_grad():
        for each, value in zip(fit.parameters, began, strict=True):
            each.copy_(value)
    return sum(losses[-LAST:]) / LAST


def clinics(table: Place, seed: int, count: int) -> list[Fit]:
    """Clinics that are not in the table, standardized as it is."""
    assert table is not None
    with table.open(encoding="utf-8", newline="") as file:
        _, *known = csv.reader(file)
    seen = torch.tensor([[float(value) for value in row[1:-1]] for row in known])
    made = runpy.run_path(str(ROOT / "examples" / "tables.py"))["clinics"]
    _, *rows = made(count=count, seed=seed + 1)
    fits = []
    for name in sorted({row[0] for row in rows}):
        own = [row for row in rows if row[0] == name]
        inputs = (torch.tensor([row[1:-1] for row in own], dtype=torch.float32) - seen.mean(0)) / seen.std(0)
        fits.append(_classified(inputs, torch.tensor([row[-1] == "malignant" for row in own]).long(), 2))
    return fits


def wines(_: Place, seed: int, count: int) -> list[Fit]:
    """So many draws of 64 wines."""
    data = load_wine()
    inputs = torch.tensor(data.data, dtype=torch.float32)
    inputs, kinds = (inputs - inputs.mean(0)) / inputs.std(0), torch.tensor(data.target)
    draws = (torch.randint(len(kinds), (64,), generator=generator) for generator in _generators(seed, count))
    return [_classified(inputs[rows], kinds[rows], 3) for rows in draws]


def _classified(inputs: Tensor, kinds: Tensor, classes: int) -> Fit:
    """Cross-entropy of a linear model, with half of `_L2` times the squared weights. Two classes have one output."""
    model = nn.Linear(inputs.shape[1], 1 if classes == 2 else classes)
    _begin(model.parameters(), 0.1)

    def loss() -> Tensor:
        outputs, decay = model(inputs), _L2 / 2 * model.weight.square().sum()
        if classes == 2:
            return binary_cross_entropy_with_logits(outputs[:, 0], kinds.float()) + decay
        return cross_entropy(outputs, kinds) + decay

    return Fit(list(model.parameters()), loss)


def autoencoders(_: Place, seed: int, count: int) -> list[Fit]:
    """Networks that begin elsewhere, and draw minibatches of their own."""
    images = torch.tensor(load_digits().data / 16, dtype=torch.float32)

    def one(generator: torch.Generator) -> Fit:
        model = nn.Sequential(nn.Linear(64, 16), nn.Sigmoid(), nn.Linear(16, 64))
        _begin(model.parameters(), 0.1)

        def loss() -> Tensor:
            batch = images[torch.randint(len(images), (128,), generator=generator)]
            return mse_loss(model(batch), batch)

        return Fit(list(model.parameters()), loss)

    return [one(generator) for generator in _generators(seed, count)]


def lassos(_: Place, seed: int, count: int) -> list[Fit]:
    """Random dictionaries and sparse vectors."""

    def one(generator: torch.Generator) -> Fit:
        dictionary = torch.randn(30, 60, generator=generator) / 30**0.5
        vector = torch.randn(60, generator=generator) * (torch.rand(60, generator=generator) < 0.1)
        seen = dictionary @ vector + 0.01 * torch.randn(30, generator=generator)
        x = nn.Parameter(torch.zeros(60))
        return Fit([x], lambda: (dictionary @ x - seen).square().sum() / 2 + 0.1 * x.abs().sum())

    return [one(generator) for generator in _generators(seed, count)]


def pendulums(_: Place, seed: int, count: int) -> list[Fit]:
    """Pendulums of other damping and stiffness."""

    def one(generator: torch.Generator) -> Fit:
        truth = 0.5 * torch.randn(2, generator=generator)
        angle = 0.5 + 1.5 * torch.rand(1, generator=generator)
        seen = swung(angle, truth) + 0.05 * torch.randn(SEEN, generator=generator)
        guess = nn.Parameter(0.3 * torch.randn(2, generator=generator))
        return Fit([guess], lambda: (swung(angle, guess) - seen).square().mean())

    return [one(generator) for generator in _generators(seed, count)]


def swung(angle: Tensor, p: Tensor) -> Tensor:
    """(1,), (2,) -> the angles at `SEEN` times, (SEEN,), by the classical Runge-Kutta method."""
    h, damping, stiffness = SECONDS / (SEEN - 1), p[0].exp() * 0.3, p[1].exp()

    def slope(s: Tensor) -> Tensor:
        return torch.stack([s[1], -damping * s[1] - stiffness * s[0].sin()])

    states = [torch.cat([angle, torch.zeros(1)])]
    for _ in range(SEEN - 1):
        s = states[-1]
        a = slope(s)
        b = slope(s + h / 2 * a)
        c = slope(s + h / 2 * b)
        states.append(s + h / 6 * (a + 2 * b + 2 * c + slope(s + h * c)))
    return torch.stack(states)[:, 0]


def _begin(parameters: Any, std: float) -> None:
    for each in parameters:
        nn.init.normal_(each, std=std)


def _generators(seed: int, count: int) -> Sequence[torch.Generator]:
    return [torch.Generator().manual_seed(1000 * (seed + 1) + number) for number in range(count)]
