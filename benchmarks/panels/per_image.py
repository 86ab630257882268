"""Losses of single test images along a run, and intervals over tasks and images together.

A test set is a sample too: an interval over tasks alone says how sure a ratio is on these very images.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.families.mlp import MLPSpec
from models.rollout import Contender, Stepper
from models.tasks.base import TaskBatch
from models.tasks.images import Images

Floats = NDArray[np.float64]
RESAMPLES = 2000
LOOKS = 10
"""How often a curve is looked at."""


@dataclass(frozen=True)
class PerImage:
    """(tasks, images) each: the loss and whether the class is right after the last step, and the mean loss over the
    looks of a run."""

    losses: Tensor
    right: Tensor
    area: Tensor


class Watched:
    """A contender whose tasks are measured on each image after some steps; the last of them is the end of the run."""

    def __init__(self, contender: Contender, spec: MLPSpec, images: Images, looks: Collection[int]) -> None:
        self._contender = contender
        self._spec = spec
        self._images = images
        self._looks = frozenset(looks)
        self._seen: list[list[tuple[Tensor, Tensor]]] = []  # of each batch and look

    def start(self, tasks: TaskBatch) -> Stepper:
        self._seen.append([])
        return _WatchedRun(self, tasks.tasks, self._contender.start(tasks))

    def see(self, step: int, tasks: int, theta: Tensor) -> None:
        """Measure, where the step is one of those."""
        if step in self._looks:
            self._seen[-1].append(on_images(self._spec, theta.view(tasks, -1), self._images))

    def found(self) -> PerImage:
        """What was seen in all runs, in the order of their tasks."""
        ends = [batch[-1] for batch in self._seen]
        area = torch.cat([torch.stack([losses for losses, _ in batch]).mean(dim=0) for batch in self._seen])
        return PerImage(torch.cat([losses for losses, _ in ends]), torch.cat([right for _, right in ends]), area)


@dataclass
class _WatchedRun:
    watched: Watched
    tasks: int
    stepper: Stepper
    steps: int = 0

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        self.stepper.step(theta, gradient)
        self.steps += 1
        self.watched.see(self.steps, self.tasks, theta)


def on_images(spec: MLPSpec, theta: Tensor, images: Images) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each image and whether its class is right, (tasks, images) each, of networks with parameters
    `theta` (tasks, coordinates): layer by layer, weights (fan_in, fan_out) before biases."""
    signal = (images.pixels.to(theta.dtype) * images.scale).expand(theta.shape[0], -1, -1)
    offset, squash = 0, torch.sigmoid if spec.activation == "sigmoid" else torch.relu
    for level, (fan_in, fan_out) in enumerate(pairwise(spec.layer_sizes)):
        weight = theta[:, offset : offset + fan_in * fan_out].view(-1, fan_in, fan_out)
        offset += fan_in * fan_out
        signal = torch.baddbmm(theta[:, None, offset : offset + fan_out], squash(signal) if level else signal, weight)
        offset += fan_out
    labels = images.labels.expand(theta.shape[0], -1)
    losses = functional.cross_entropy(signal.transpose(1, 2), labels, reduction="none").nan_to_num(nan=torch.inf)
    return losses, (signal.argmax(dim=2) == labels).to(theta.dtype)


def looks(horizon: int) -> list[int]:
    """The steps of a run after which images are measured, the last one being the horizon."""
    return sorted({max(1, round(horizon * look / LOOKS)) for look in range(1, LOOKS + 1)})


def ratio_interval(learned: Tensor, baseline: Tensor, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the ratio of means, where tasks and images are drawn anew; the same ones for both. Both
    (tasks, images)."""
    above, below = _means(learned, baseline, seed)
    return _percentiles(above / below)


def difference_interval(learned: Tensor, baseline: Tensor, seed: int = 0) -> tuple[float, float]:
    """The same of the difference of means."""
    above, below = _means(learned, baseline, seed)
    return _percentiles(above - below)


def _means(learned: Tensor, baseline: Tensor, seed: int) -> tuple[Floats, Floats]:
    """Means over resampled tasks and images, (resamples,) each."""
    tasks, images = learned.shape
    generator = np.random.default_rng(seed)
    by_task = generator.multinomial(tasks, np.full(tasks, 1 / tasks), size=RESAMPLES) / tasks
    by_image = generator.multinomial(images, np.full(images, 1 / images), size=RESAMPLES) / images

    def means(values: Tensor) -> Floats:
        drawn: Floats = ((by_task @ values.double().numpy()) * by_image).sum(axis=1)
        return drawn

    return means(learned), means(baseline)


def _percentiles(resampled: Floats) -> tuple[float, float]:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)
