"""What a step of Neural Art costs beside torch's own modules and autograd of the same loss, and how far products with
the Hessian are from float64's.

    ./run bench style_step --data DIR        # a data folder with art and vgg19-distilled

One thread, processor time, the best of several rounds in which all of them take turns. Prints tables, writes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn

from benchmarks.hyper_step import best_milliseconds
from benchmarks.learned_vs_tuned.report import machine
from models.families import FAMILIES
from models.families.style import StyleSpec
from models.families.style.data import NETWORK_FILES
from models.families.style.networks import NETWORKS, Conv
from models.families.style.tasks import MIDDLE, SPREAD, StyleBatch
from models.spec import Split
from models.tasks.base import TaskBatch
from models.tasks.catalogue import open_for_training
from models.tasks.randomness import key, normals

ROUNDS = 12


class Plain(nn.Module):
    """The loss of a batch in torch's own modules, of a network of convolutions: what a user would write."""

    def __init__(self, tasks: StyleBatch, spec: StyleSpec, data_dir: Path) -> None:
        super().__init__()
        network = NETWORKS[spec.network]
        tensors = load(NETWORK_FILES[spec.network].read(data_dir, network.file))
        self.spec, self.names, self.layers = spec, [], nn.ModuleList()
        channels = 3
        for layer in network.up_to((*spec.compared_content, *spec.compared_style)):
            self.names.append(layer.name if isinstance(layer, Conv) else "")
            if not isinstance(layer, Conv):
                self.layers.append(nn.MaxPool2d(2))
                continue
            convolution = nn.Conv2d(
                channels, layer.channels, layer.kernel, padding=layer.padding, padding_mode="reflect"
            )
            names = {name: tensors[f"{layer.tensor}.{name}"] for name in ("weight", "bias")}
            convolution.load_state_dict(names)
            self.layers.append(nn.Sequential(convolution, nn.ReLU()) if layer.name else convolution)
            channels = layer.channels
        self.requires_grad_(requires_grad=False)
        given = tasks.given_pictures()
        self.scales = tasks.scales
        self.content = self.features(given["content"].permute(0, 3, 1, 2) / 255.0)
        self.grams = {
            name: gram(value) for name, value in self.features(given["style"].permute(0, 3, 1, 2) / 255.0).items()
        }

    def features(self, images: Tensor) -> dict[str, Tensor]:
        found, x = {}, images
        for name, layer in zip(self.names, self.layers, strict=True):
            x = layer(x)
            if name in self.scales:
                found[name] = x / self.scales[name]
        return found

    def forward(self, theta: Tensor) -> Tensor:
        images = MIDDLE + SPREAD * theta
        found = self.features(images)
        variation = images.diff(dim=2).square().mean() + images.diff(dim=3).square().mean()
        content = [nn.functional.mse_loss(found[name], self.content[name]) for name in self.spec.compared_content]
        style = [nn.functional.mse_loss(gram(found[name]), self.grams[name]) for name in self.spec.compared_style]
        return (
            self.spec.variation_weight * variation
            + self.spec.content_weight * torch.stack(content).mean()
            + self.spec.style_weight * torch.stack(style).mean()
        )


def gram(features: Tensor) -> Tensor:
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def drawn(spec: StyleSpec, data_dir: Path, tasks: int, dtype: torch.dtype = torch.float32) -> StyleBatch:
    family = open_for_training(spec, data_dir)
    [batch] = family.sample(Split.TRAIN, seed=0, trajectory=0, tasks=tasks, dtype=dtype)
    assert isinstance(batch, StyleBatch)
    return batch


def direction(batch: TaskBatch) -> Tensor:
    return normals(torch.tensor([key("style_step")]), batch.coordinates)[0].to(batch.dtype)


def costs(spec: StyleSpec, data_dir: Path, tasks: int) -> dict[str, float]:
    """Milliseconds of each, for all tasks together."""
    batch = drawn(spec, data_dir, tasks)
    theta, v = batch.initial(), direction(batch)
    plain, image = Plain(batch, spec, data_dir), batch.initial().view(tasks, 3, spec.size, spec.size).requires_grad_()
    own = batch.losses(theta, 0).mean()
    torch.testing.assert_close(plain(image).detach(), own, rtol=1e-4, atol=0)  # the same loss
    works: dict[str, Callable[[], object]] = {
        "torch's modules, forward and backward": lambda: torch.autograd.grad(plain(image), image),
        "losses_and_gradient": lambda: batch.losses_and_gradient(theta, 0),
        "hessian_vector": lambda: batch.hessian_vector(theta, 0, v),
        "double backward": lambda: doubly(batch, theta, v),
        "a difference of gradients": lambda: TaskBatch.hessian_vector(batch, theta, 0, v, gradient=theta),
    }
    return best_milliseconds(works, ROUNDS)


def doubly(batch: StyleBatch, theta: Tensor, v: Tensor) -> Tensor:
    free = theta.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(batch.losses(free, 0).sum(), free, create_graph=True)
    (product,) = torch.autograd.grad(gradient, free, v)
    return product


def errors(spec: StyleSpec, data_dir: Path) -> dict[str, float]:
    """How far products in float32 are from those in float64, in shares of their size, at the start of a run."""
    single, double = (drawn(spec, data_dir, 1, dtype) for dtype in (torch.float32, torch.float64))
    theta, v = double.initial(), direction(double)
    truth = doubly(double, theta, v)
    found = {
        "hessian_vector, float64": double.hessian_vector(theta, 0, v),
        "hessian_vector, float32": single.hessian_vector(theta.float(), 0, v.float()),
        "a difference of gradients, float32": TaskBatch.hessian_vector(single, theta.float(), 0, v.float()),
    }
    return {name: float((product.double() - truth).norm() / truth.norm()) for name, product in found.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./run bench style_step", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--data", type=Path, required=True, help="a data folder with art and vgg19-distilled")
    data_dir = parser.parse_args(arguments).data
    torch.set_num_threads(1)
    print(f"{machine()}\n")
    for name, tasks in (("neural-art", 1), ("neural-art", 4), ("neural-art-128", 1)):
        spec = FAMILIES[name].tasks
        assert isinstance(spec, StyleSpec)
        found = costs(spec, data_dir, tasks)
        own = next(iter(found.values()))
        print(f"| {name}, {tasks} task{'s' if tasks > 1 else ''} | ms | of torch's own |\n|---|---|---|")
        print("\n".join(f"| {what} | {spent:.1f} | {spent / own:.2f} |" for what, spent in found.items()) + "\n")
    spec = FAMILIES["neural-art"].tasks
    assert isinstance(spec, StyleSpec)
    print("| H v against float64's double backward | error |\n|---|---|")
    print("\n".join(f"| {what} | {error:.1e} |" for what, error in errors(spec, data_dir).items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
