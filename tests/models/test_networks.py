"""The compiled kernel of networks against autograd in float64, and the tasks that use it against those that do not."""

from __future__ import annotations

import pytest
import torch

from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.native import BuildSettings
from gradsmith.rules.kernels.native.targets import Target, targets_here
from models.families.mlp import MLPSpec
from models.families.mlp.compiled import MOST_UNITS, Networks, networks
from models.families.mlp.trial import by_autograd
from models.spec import Split
from models.tasks.catalogue import open_for_training
from models.tasks.images import Images
from tests.compiler import COMPILER, compiled, no_kernel

TARGETS = targets_here()
SHAPES = {
    "no hidden layer": ((5, 3), 4),
    "one unit and one image": ((3, 1, 2), 1),
    "that of digits": ((64, 20, 10), 128),
    "wide and deep": ((30, 65, 16, 33, 10), 19),
}


def kernel_for(sizes: tuple[int, ...], target: Target, *, relu: bool) -> Networks:
    cache = BuildSettings.from_environment().cache
    kernel = networks(sizes, relu=relu, settings=BuildSettings(cache, target.name, compiler=COMPILER))
    if isinstance(kernel, Refusal):
        no_kernel(kernel.reason)
    return kernel


@compiled
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_loss_gradient_and_product_are_those_of_autograd(target, shape, relu):
    sizes, batch = SHAPES[shape]
    generator = torch.Generator().manual_seed(5)
    kernel = kernel_for(sizes, target, relu=relu)
    pixels = torch.randint(256, (40, sizes[0]), generator=generator).to(torch.uint8)
    images = Images(pixels, torch.randint(sizes[-1], (40,), generator=generator), 1 / 255)
    if shape == "wide and deep":  # of a table
        images = Images(pixels / 255 - 0.5, images.labels, 1.0)
    rows = torch.randint(40, (3, 2 * batch), generator=generator)[:, ::2]  # not contiguous
    theta, v = torch.randn(2, 3 * kernel.coordinates, generator=generator) / 2
    losses, gradient = kernel.gradient(images, rows, theta)
    product = kernel.product(images, rows, theta, v)
    for task, places in enumerate(rows):
        own = slice(task * kernel.coordinates, (task + 1) * kernel.coordinates)
        expected = by_autograd(sizes, images, places, theta[own].double(), v[own].double(), relu=relu)
        for one, other in zip((losses[task : task + 1], gradient[own], product[own]), expected, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=2e-6 * float(other.abs().max()))


@compiled
@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_tasks_have_the_gradients_of_their_float64_twins(activation):
    """Whose gradients and products are written out with torch, and tested in test_tasks.py."""
    spec = MLPSpec(hidden=(6,), activation=activation, batch_size=9)
    for parted in (False, True):
        single, double = (
            open_for_training(spec).sample(Split.TRAIN, seed=0, trajectory=1, tasks=3, dtype=dtype)[0]
            for dtype in (torch.float32, torch.float64)
        )
        if parted:
            single, double = single.parted(), double.parted()
        if single._compiled is None:
            no_kernel("networks go through torch")
        assert double._compiled is None
        theta, v = single.initial(), torch.randn(single.coordinates)
        for step in (0, 40):  # beyond the steps whose minibatches are drawn at once
            found = (*single.losses_and_gradient(theta, step), single.hessian_vector(theta, step, v))
            expected = (
                *double.losses_and_gradient(theta.double(), step),
                double.hessian_vector(theta.double(), step, v.double()),
            )
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-6 * float(other.abs().max()))


@compiled
def test_a_network_that_diverges_says_so():
    sizes, _ = SHAPES["that of digits"]
    kernel = kernel_for(sizes, TARGETS[0], relu=False)
    images = Images(torch.ones(4, 64, dtype=torch.uint8), torch.tensor([0, 1, 2, 3]), 1.0)
    rows = torch.arange(4).repeat(2, 1)
    theta = torch.zeros(2, kernel.coordinates)
    theta[0, 7] = torch.nan
    losses, gradient = kernel.gradient(images, rows, theta.view(-1))
    assert losses[0].isnan()
    assert losses[1] == pytest.approx(torch.tensor(10.0).log().item(), rel=1e-6)
    assert gradient[: kernel.coordinates].isnan().any()
    assert gradient[kernel.coordinates :].isfinite().all()
    theta[0] = 1e30 * torch.randn(kernel.coordinates, generator=torch.Generator().manual_seed(0))
    assert not kernel.gradient(images, rows, theta.view(-1))[0][0] < 1e20


@compiled
def test_a_task_has_the_bits_that_it_has_alone():
    sizes, batch = SHAPES["wide and deep"]
    kernel = kernel_for(sizes, TARGETS[0], relu=True)
    generator = torch.Generator().manual_seed(5)
    images = Images(torch.randint(256, (40, 30), generator=generator).to(torch.uint8), torch.arange(40) % 10, 1 / 255)
    rows, theta = torch.randint(40, (4, batch), generator=generator), torch.randn(4 * kernel.coordinates)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        _, together = kernel.gradient(images, rows, theta)
    finally:
        torch.set_num_threads(before)
    _, alone = kernel.gradient(images, rows[1:2], theta[kernel.coordinates : 2 * kernel.coordinates])
    assert torch.equal(alone, together[kernel.coordinates : 2 * kernel.coordinates])


def test_wrong_tensors_and_large_layers_are_refused():
    refusal = networks((784, MOST_UNITS + 1, 10), relu=True)
    assert isinstance(refusal, Refusal)
    kernel = networks((3, 2), relu=True)
    if isinstance(kernel, Refusal):
        no_kernel(kernel.reason)
    images = Images(torch.ones(4, 3, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), 1.0)
    rows = torch.zeros(1, 5, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"theta must be a torch.float32 tensor of shape \(8,\)"):
        kernel.gradient(images, rows, torch.zeros(9))
    with pytest.raises(ValueError, match="v must be"):
        kernel.product(images, rows, torch.zeros(8), torch.zeros(8, dtype=torch.float64))
    with pytest.raises(ValueError, match="pixels must be"):
        kernel.gradient(Images(torch.ones(4, 4, dtype=torch.uint8), images.labels, 1.0), rows, torch.zeros(8))
