"""One inner step of a convolutional family beside torch's own layers: ./run bench conv_step

The gradient of a minibatch, its product with the Hessian, and torch.nn's forward and backward of the same network on
the same minibatch, in turns, in CPU seconds of one thread. Images are random: what they show costs nothing. Exits with
1 where a gradient takes more than LIMIT times torch's own.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from models.families import FAMILIES
from models.families.conv import ConvSpec
from models.families.conv.tasks import ConvBatch
from models.spec import Split
from models.tasks.base import TaskBatch
from models.tasks.images import Images
from models.tasks.randomness import task_seeds

LIMIT = 1.3
IMAGES = 1_000
NAMES = ("cifar10-conv", "cifar2-conv", "digits-conv")


def batch_of(spec: ConvSpec, tasks: int, device: torch.device) -> ConvBatch:
    """Tasks of this shape on random images."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (IMAGES, spec.colours * spec.side**2), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, spec.classes, (IMAGES,), generator=generator)
    images = Images(pixels, labels, 1 / 255).to(device)
    seeds = task_seeds(Split.TRAIN, "benchmark/conv", 0, 0, 0, tasks)
    return ConvBatch(spec, seeds, images, images, torch.float32, device)


def own_network(spec: ConvSpec) -> nn.Sequential:
    """The network as torch.nn has it: ReLU and batch norm with the statistics of the batch."""
    layers: list[nn.Module] = []
    into = spec.colours
    for width in spec.channels:
        layers += [nn.Conv2d(into, width, 3, padding=1, bias=False), nn.BatchNorm2d(width, track_running_stats=False)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        into = width
    layers.append(nn.Flatten())
    into = spec.dense_sizes[0]
    for units in spec.hidden:
        layers += [nn.Linear(into, units, bias=False), nn.BatchNorm1d(units, track_running_stats=False), nn.ReLU()]
        into = units
    return nn.Sequential(*layers, nn.Linear(into, spec.classes))


def measured(spec: ConvSpec, tasks: int, rounds: int, device: torch.device) -> dict[str, float]:
    """Seconds a task of each way, the median of `rounds`; and by which share of its length a product from a difference
    of gradients differs from the exact one at the start, along a random direction."""
    batch = batch_of(spec, tasks, device)
    theta = batch.initial()
    v = torch.randn_like(theta)
    networks = [own_network(spec).to(device) for _ in range(tasks)]

    def own() -> None:
        pixels, labels = batch._minibatch(0)
        images = pixels.view(*pixels.shape[:2], spec.side, spec.side, spec.colours).permute(0, 1, 4, 2, 3).contiguous()
        for network, of_task, classes in zip(networks, images, labels, strict=True):
            network.zero_grad()
            functional.cross_entropy(network(of_task), classes).backward()

    ways: dict[str, Callable[[], object]] = {
        "torch.nn": own,
        "gradient": lambda: batch.losses_and_gradient(theta, 0),
        "product": lambda: batch.hessian_vector(theta, 0, v),
    }
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 2):
        for name, way in ways.items():
            began = clock()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= 2:
                seconds[name].append((clock() - began) / tasks)
    exact, difference = batch.hessian_vector(theta, 0, v), TaskBatch.hessian_vector(batch, theta, 0, v)
    errs = float((difference - exact).norm() / exact.norm())
    return {name: statistics.median(each) for name, each in seconds.items()} | {"errs": errs}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./run bench conv_step", description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    worst = 0.0
    print(
        "| family | tasks | torch.nn, ms | gradient, ms | ratio | Hessian product, ms | over the gradient "
        "| a difference errs by |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in options.families:
        spec = FAMILIES[name].tasks
        assert isinstance(spec, ConvSpec)
        for tasks in options.tasks:
            found = measured(spec, tasks, options.rounds, torch.device(options.device))
            ratio = found["gradient"] / found["torch.nn"]
            worst = max(worst, ratio)
            own, gradient, product = (f"{1e3 * found[key]:.1f}" for key in ("torch.nn", "gradient", "product"))
            print(
                f"| {name} | {tasks} | {own} | {gradient} | {ratio:.2f} | {product} "
                f"| {found['product'] / found['gradient']:.2f} | {found['errs']:.2g} |",
                flush=True,
            )
    print(f"\nThe gradient takes at most {worst:.2f} times torch.nn's own; {LIMIT} is asked for.")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
