"""Autoencoders on digits and on a user's table, against a network of torch.nn's and float64 autograd."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.families import FAMILIES
from models.families.autoencoder import AutoencoderSpec
from models.families.mlp import MLPSpec
from models.spec import Split
from models.tasks.catalogue import open_for_testing, open_for_training
from models.tasks.conformance import CHECKS, Subject
from models.tasks.images import load_images
from models.tasks.row_batch import RowBatch
from tests.models.tables import brought

SMALL = AutoencoderSpec(hidden=(3, 2), batch_size=6, input_scale=0.5, start_std=0.5)


def drawn(spec: AutoencoderSpec, data_dir: Path | None = None, split: Split = Split.TRAIN) -> RowBatch:
    family = (open_for_testing if split is Split.TEST else open_for_training)(spec, data_dir)
    [batch] = family.sample(split, seed=1, trajectory=0, tasks=3, dtype=torch.float64)
    assert isinstance(batch, RowBatch)
    return batch


@pytest.mark.parametrize("promise", sorted(CHECKS.keys() - {"memory"}))
def test_an_autoencoder_keeps_what_families_promise(promise: str) -> None:
    CHECKS[promise](Subject(AutoencoderSpec(dataset="wine", hidden=(4,), batch_size=6, start_std=0.5)))


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_gradients_and_products_are_autograds(activation: str) -> None:
    batch = drawn(SMALL.model_copy(update={"activation": activation}))
    theta = batch.initial()
    v = torch.linspace(-1, 1, theta.numel(), dtype=torch.float64)
    free = theta.clone().requires_grad_()
    plain = batch.losses(free, 3)
    losses, gradient = batch.losses_and_gradient(theta, 3)
    torch.testing.assert_close(losses, plain.detach())
    (slope,) = torch.autograd.grad(plain.sum(), free, create_graph=True)
    torch.testing.assert_close(gradient, slope.detach())
    torch.testing.assert_close(batch.hessian_vector(theta, 3, v), torch.autograd.grad(slope @ v, free)[0])


def test_it_is_the_network_that_users_would_write() -> None:
    batch = drawn(AutoencoderSpec(batch_size=8, start_std=0.3))
    theta = batch.initial()
    encoder, decoder = torch.nn.Linear(64, 16), torch.nn.Linear(16, 64)
    network = torch.nn.Sequential(encoder, torch.nn.Sigmoid(), decoder).double()
    with torch.no_grad():
        flat = theta.view(3, -1)[1]
        for layer, shape in ((encoder, (64, 16)), (decoder, (16, 64))):
            size = shape[0] * shape[1]
            layer.weight.copy_(flat[:size].view(shape).T)
            layer.bias.copy_(flat[size : size + shape[1]])
            flat = flat[size + shape[1] :]
    X, targets, _ = batch._rows(5)
    assert torch.equal(X, targets)
    truth = torch.nn.functional.mse_loss(network(X[1]), X[1])
    torch.testing.assert_close(batch.losses(theta, 5)[1], truth)
    pixels = load_images("digits", {Split.TRAIN}, None)[Split.TRAIN]
    known = {tuple(row) for row in (pixels.pixels / 16).tolist()}
    assert all(tuple(row) in known for row in X[1].tolist())


def test_held_out_images_are_those_of_the_split_and_what_is_explained_is_a_share_of_their_variance() -> None:
    for split in (Split.VALIDATION, Split.TEST):
        batch = drawn(AutoencoderSpec(), split=split)
        images = load_images("digits", {split}, None)[split]
        theta = torch.zeros_like(batch.initial())
        mean = (images.pixels.double() / 16).mean(dim=0)
        theta.view(3, -1)[:, -64:] = mean  # the last bias: every output is the mean of the held-out images
        found = batch.held_out(theta)
        assert found.accuracies.abs().max() < 1e-6
        truth = (images.pixels.double() / 16 - mean).square().mean()
        torch.testing.assert_close(found.losses, truth.expand(3), rtol=1e-6, atol=0)


def test_on_a_table_each_task_has_its_groups_rows(tmp_path: Path) -> None:
    found = brought(tmp_path)
    for name in ("y by group", "k by group", "y by None"):  # numbers, words and no groups
        spec = AutoencoderSpec(dataset=found[name], hidden=(2,), batch_size=5)
        assert spec.layer_sizes == (3, 2, 3)
        batch = drawn(spec, tmp_path)
        assert bool(batch.losses_and_gradient(batch.initial(), 0)[0].isfinite().all())
        assert batch.held_out(batch.initial()).losses.shape == (3,)


def test_the_64_16_64_network_on_digits_is_a_family() -> None:
    family = FAMILIES["digits-autoencoder"]
    assert family.tasks.coordinates_per_task == 64 * 16 + 16 + 16 * 64 + 64
    assert {"muon", "soap"} <= {*family.evaluation.baselines}


def test_an_input_scale_is_what_it_says() -> None:
    plain, scaled = (
        open_for_training(MLPSpec(batch_size=4, input_scale=scale)).sample(
            Split.TRAIN, seed=0, trajectory=0, tasks=2, dtype=torch.float64
        )[0]
        for scale in (1.0, 3.0)
    )
    assert plain.namespace != scaled.namespace
    X = [batch.scaled(torch.ones(1, 64)) for batch in (plain, scaled)]  # type: ignore[attr-defined]
    torch.testing.assert_close(X[1], 3 * X[0])
