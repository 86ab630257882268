"""The benchmark's problems as the product's own task batches, and their export for the peers."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.core import problem as problems
from benchmarks.core.problem import CONVOLUTIONS, DENSE, HORIZON, IMAGE, SIZES, Loaded, Problem
from models.families.mlp import MLPSpec
from models.families.mlp.tasks import MLPBatch
from models.families.quadratic import QuadraticSpec
from models.families.quadratic.tasks import QuadraticBatch, QuadraticFamily
from models.spec import Split
from models.task_spec import TaskSpec
from models.tasks.base import TaskBatch
from models.tasks.images import Images
from models.tasks.randomness import indices, normals, streams, task_seeds

IMAGES = 12_800  # synthetic: what pixels show costs nothing, and no data set has to be there
BATCH = 128


def batch_of(
    problem: Problem, dtype: torch.dtype = torch.float32, *, loaded: Loaded | None = None, own: range | None = None
) -> TaskBatch:
    """The problem's tasks; the same ones in every process and precision.

    loaded: where their images are already; own: which of the tasks, default all
    """
    own = own or range(problem.tasks)
    if problem.kind == "quadratics":
        family = QuadraticFamily(QuadraticSpec(), {Split.TRAIN})
        [batch] = family.sample(Split.TRAIN, seed=0, trajectory=0, tasks=len(own), first=own.start, dtype=dtype)
        return batch
    seeds = task_seeds(Split.TRAIN, f"benchmark/{problem.kind}", 0, 0, own.start, len(own))
    images = _images(problem) if loaded is None else _stored(loaded)
    if problem.kind in SIZES:
        return MLPBatch(spec_of(problem), seeds, images, images, dtype, torch.device("cpu"))
    return ConvBatch(seeds, images, dtype)


def spec_of(problem: Problem) -> TaskSpec:
    """The problem's tasks as the product describes them; the convnet is none of its own."""
    if problem.kind == "quadratics":
        return QuadraticSpec()
    return MLPSpec(dataset="digits" if problem.kind == "digits" else "mnist")


def export(problem: Problem, path: Path) -> None:
    """Write the problem's arrays, in float64, to `path`."""
    batch = batch_of(problem, torch.float64)
    arrays = {"start": batch.initial()}
    if isinstance(batch, QuadraticBatch):
        arrays |= {"W": batch.W, "y": batch.y[..., 0]}
    else:
        images = _images(problem)
        seeds = task_seeds(Split.TRAIN, f"benchmark/{problem.kind}", 0, 0, 0, problem.tasks)
        stream = streams(seeds, "minibatch")
        rows = torch.stack([indices(stream, step, BATCH, IMAGES).flatten() for step in range(HORIZON + 1)])
        arrays |= {"pixels": images.pixels, "labels": images.labels.int(), "rows": rows.int()}
    problems.save(problem, {name: value.numpy() for name, value in arrays.items()}, path)


class ConvBatch(TaskBatch):
    """One convolutional network without batch norm: 3x3 convolutions 16-16-16 of stride 2, 2, 1, then 1024-24-10,
    ReLU between all of them. Gradients by torch's autograd."""

    def __init__(self, seeds: Tensor, images: Images, dtype: torch.dtype) -> None:
        super().__init__(1, problems.CONVNET.coordinates, dtype, torch.device("cpu"))
        self._start = normals(streams(seeds, "start"), self.coordinates)[0].mul_(0.05).to(dtype)
        self._minibatches = streams(seeds, "minibatch")
        self._pixels = images.pixels.view(-1, *IMAGE)
        self._images = images

    def initial(self) -> Tensor:
        return self._start.clone()

    def buffers(self) -> dict[str, Tensor]:
        return {"start": self._start, "minibatches": self._minibatches}

    def losses_and_gradient(self, theta: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:
        theta = theta.detach().requires_grad_()
        losses = self.losses(theta, step)
        (gradient,) = torch.autograd.grad(losses.sum(), theta)
        return losses.detach(), gradient

    def losses(self, theta: Tensor, step: int | Tensor) -> Tensor:
        rows = indices(self._minibatches, step, BATCH, IMAGES)[0]
        inputs = self._pixels[rows].to(self.dtype).mul_(self._images.scale)
        return functional.cross_entropy(network(theta, inputs), self._images.labels[rows])[None]


def network(theta: Tensor, inputs: Tensor) -> Tensor:
    """(29938,), (batch, 3, 32, 32) -> (batch, 10). Weights before biases, layer by layer."""
    shapes = [(out, into, 3, 3) for into, out, _ in CONVOLUTIONS] + [(out, into) for into, out in pairwise(DENSE)]
    pieces = theta.split([count for shape in shapes for count in (torch.Size(shape).numel(), shape[0])])
    layers = [(pieces[2 * i].view(shape), pieces[2 * i + 1]) for i, shape in enumerate(shapes)]
    signal = inputs
    for (weight, bias), (_, _, stride) in zip(layers, CONVOLUTIONS, strict=False):
        signal = functional.conv2d(signal, weight, bias, stride=stride, padding=1).relu()
    (weight, bias), (last_weight, last_bias) = layers[len(CONVOLUTIONS) :]
    hidden = functional.linear(signal.flatten(1), weight, bias).relu()
    return functional.linear(hidden, last_weight, last_bias)


def _stored(loaded: Loaded) -> Images:
    """The same images, without a copy."""
    return Images(torch.from_numpy(loaded["pixels"]), torch.from_numpy(loaded["labels"]).long(), 1 / 255)


def _images(problem: Problem) -> Images:
    inputs = SIZES[problem.kind][0] if problem.kind in SIZES else math.prod(IMAGE)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (IMAGES, inputs), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.randint(0, 10, (IMAGES,), generator=generator), 1 / 255)
