"""Tasks: gradients against autograd, batches against single tasks, splits that stay apart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from models.errors import SplitHeldOut
from models.families import FAMILIES
from models.families.functions import FunctionSpec
from models.families.functions.tasks import FUNCTIONS
from models.families.mlp import MLPSpec
from models.families.quadratic import QuadraticSpec
from models.spec import Split
from models.tasks.catalogue import open_for_testing, open_for_training, open_for_tuning
from models.tasks.images import load_images
from models.tasks.randomness import indices

SPECS = [
    QuadraticSpec(dimension=4),
    QuadraticSpec(dimension=3, distribution="uniform"),
    MLPSpec(hidden=(5,), batch_size=16),
    MLPSpec(hidden=(6, 4), activation="relu", batch_size=16),
    MLPSpec(hidden=(), batch_size=16),
    FunctionSpec(),
    FunctionSpec(function="rastrigin", dimension=3),
    FunctionSpec(function="ackley", dimension=4),
]


def batch(spec, tasks=3, dtype=torch.float64, split=Split.TRAIN, **where):
    where = {"seed": 1, "trajectory": 2} | where
    [drawn] = open_for_training(spec).sample(split, tasks=tasks, dtype=dtype, **where)
    return drawn


def test_a_minibatch_depends_on_its_step_alone_whatever_was_drawn_before():
    tasks = batch(MLPSpec(batch_size=7))
    for step in (0, 40, 31, 32, 1000, 33, 0):
        pixels, labels = tasks._minibatch(step)
        rows = indices(tasks._minibatches, step, 7, len(tasks._training))
        assert torch.equal(pixels, tasks.scaled(tasks._training.pixels[rows]))
        assert torch.equal(labels, tasks._training.labels[rows])


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_the_gradient_is_autograds_and_of_the_same_minibatch(spec):
    tasks = batch(spec)
    theta = tasks.initial().requires_grad_()
    for step in (0, 7):
        losses, gradient = tasks.losses_and_gradient(theta.detach(), step)
        plain = tasks.losses(theta, step)
        (expected,) = torch.autograd.grad(plain.sum(), theta)
        assert losses.shape == (3,)
        torch.testing.assert_close(losses, plain.detach(), rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_a_task_is_the_same_alone_and_in_company(spec):
    together = batch(spec, tasks=5)
    theta = together.initial()
    losses, gradient = together.losses_and_gradient(theta, 3)
    own = slice(2 * spec.coordinates_per_task, 3 * spec.coordinates_per_task)
    alone = batch(spec, tasks=1, first=2)
    assert torch.equal(alone.initial(), theta[own])
    lonely, steepest = alone.losses_and_gradient(theta[own], 3)
    torch.testing.assert_close(lonely, losses[2:3], rtol=1e-12, atol=0)
    torch.testing.assert_close(steepest, gradient[own], rtol=1e-11, atol=1e-14)


def test_segments_name_the_task_of_each_coordinate():
    assert batch(QuadraticSpec(dimension=2), tasks=3).segments.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_quadratic_is_what_the_paper_says():
    tasks = batch(QuadraticSpec(dimension=4), tasks=2)
    theta = tasks.initial()
    by_hand = [float((tasks.W[i] @ theta[4 * i : 4 * i + 4] - tasks.y[i, :, 0]).square().sum()) for i in range(2)]
    torch.testing.assert_close(tasks.losses(theta, 0), torch.tensor(by_hand, dtype=torch.float64))


@pytest.mark.parametrize(
    ("function", "point", "value"),
    [
        # values of the published formulas, whose minimum is at (1, .., 1) for Rosenbrock's and at the origin else
        ("rosenbrock", (0.0, 0.0), 1.0),
        ("rosenbrock", (-1.2, 1.0), 24.2),
        ("rosenbrock", (1.0, 1.0, 1.0), 0.0),
        ("rastrigin", (0.0, 0.0), 0.0),
        ("rastrigin", (0.5, 0.5), 40.5),
        ("ackley", (0.0, 0.0), 0.0),
        ("ackley", (1.0, 1.0), 20 * (1 - math.exp(-0.2))),
    ],
)
def test_a_test_function_has_its_published_values(function, point, value):
    x = torch.tensor([point], dtype=torch.float64) - (1.0 if function == "rosenbrock" else 0.0)
    losses, _ = FUNCTIONS[function](x)
    assert losses.item() == pytest.approx(value, abs=1e-12)


def test_a_test_functions_minimum_lies_elsewhere_in_each_task():
    tasks = batch(FunctionSpec(shift_std=2.0), tasks=400)
    losses, gradient = tasks.losses_and_gradient(tasks.buffers()["minimum"].reshape(-1), 0)
    assert losses.abs().max() < 1e-20
    assert gradient.abs().max() < 1e-20
    assert abs(tasks.buffers()["minimum"].std() - 2) < 0.2
    assert abs(tasks.initial().std() - 1) < 0.1


def test_quadratics_are_gaussian_or_uniform_and_start_standard_normal():
    gaussian = batch(QuadraticSpec(), tasks=400)
    assert gaussian.W.mean().abs() < 0.02
    assert abs(gaussian.W.std() - 1) < 0.02
    uniform = batch(QuadraticSpec(distribution="uniform"), tasks=400)
    assert uniform.W.min() > 0
    assert uniform.W.max() < 1
    assert abs(uniform.y.mean() - 0.5) < 0.02
    assert abs(uniform.initial().std() - 1) < 0.05


def test_a_network_computes_what_torch_computes():
    spec = MLPSpec(hidden=(20,))
    tasks = batch(spec, tasks=1)
    theta = tasks.initial()
    model = nn.Sequential(nn.Linear(64, 20), nn.Sigmoid(), nn.Linear(20, 10)).double()
    with torch.no_grad():
        model[0].weight.copy_(theta[:1280].view(64, 20).t())
        model[0].bias.copy_(theta[1280:1300])
        model[2].weight.copy_(theta[1300:1500].view(20, 10).t())
        model[2].bias.copy_(theta[1500:])
        images = load_images("digits", {Split.VALIDATION}, None)[Split.VALIDATION]
        logits = model(images.pixels.double() / 16)
    held_out = batch(spec, tasks=1, split=Split.VALIDATION)
    found = held_out.held_out(theta)
    expected = nn.functional.cross_entropy(logits, images.labels)
    torch.testing.assert_close(found.losses[0], expected)
    assert float(found.accuracies[0]) == pytest.approx(float((logits.argmax(1) == images.labels).double().mean()))


def test_a_network_starts_from_its_documented_gaussian():
    theta = batch(MLPSpec(start_std=0.1), tasks=40).initial()
    assert abs(theta.std() - 0.1) < 0.002


def test_the_three_parts_of_the_images_are_apart_and_random():
    parts = load_images("digits", set(Split), None)
    assert sum(len(part) for part in parts.values()) == 1797
    rows = {split: {tuple(row) for row in part.pixels.tolist()} for split, part in parts.items()}
    assert len(set.union(*rows.values())) == sum(len(each) for each in rows.values())
    for part in parts.values():  # a fixed random draw: every class has its share in each part
        assert torch.bincount(part.labels, minlength=10).min() > 0.06 * len(part)


@pytest.mark.parametrize(("name", "load"), [("breast-cancer", "load_breast_cancer"), ("wine", "load_wine")])
def test_a_table_is_scaled_by_its_training_rows_alone(name, load):
    from sklearn import datasets  # not above: every process that collects the tests would wait for it

    data = getattr(datasets, load)()
    parts = load_images(name, set(Split), None)
    training = parts[Split.TRAIN].pixels
    torch.testing.assert_close(training.mean(dim=0), torch.zeros(training.shape[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(training.std(dim=0, correction=0), torch.ones(training.shape[1]), atol=1e-5, rtol=0)
    # One affine map of each column brings every row back, with its label, whichever part it is in.
    scaled = torch.cat([parts[split].pixels for split in Split]).double()
    raw = torch.from_numpy(data.data)
    slope = (raw.amax(0) - raw.amin(0)) / (scaled.amax(0) - scaled.amin(0))
    back = raw.amin(0) + slope * (scaled - scaled.amin(0))
    nearest = torch.cdist(back / raw.amax(0), raw / raw.amax(0)).min(dim=1)
    assert nearest.values.max() < 1e-5
    assert sorted(nearest.indices.tolist()) == list(range(len(raw)))
    labels = torch.cat([parts[split].labels for split in Split])
    assert torch.equal(labels, torch.from_numpy(data.target)[nearest.indices])


@pytest.mark.parametrize(("name", "layers"), [("breast-cancer", (30, 20, 2)), ("wine", (13, 20, 3))])
def test_a_network_takes_the_columns_and_classes_of_its_table(name, layers):
    spec = MLPSpec(dataset=name)
    assert spec.layer_sizes == layers
    [tasks] = open_for_training(spec).sample(Split.TRAIN, seed=0, trajectory=0, tasks=2)
    theta, losses = tasks.initial(), []
    for step in range(60):
        loss, gradient = tasks.losses_and_gradient(theta, step)
        losses.append(loss)
        theta -= 0.5 * gradient
    assert (losses[-1] < 0.5 * losses[0]).all()


def test_training_never_holds_a_test_image():
    assert set(load_images("digits", {Split.TRAIN, Split.VALIDATION}, None)) == {Split.TRAIN, Split.VALIDATION}


def test_optimizees_train_on_training_images_whatever_their_split():
    spec = MLPSpec(batch_size=64)
    training = {tuple(row) for row in load_images("digits", set(), None)[Split.TRAIN].pixels.tolist()}
    for family, split in ((open_for_tuning(spec), Split.VALIDATION), (open_for_testing(spec), Split.TEST)):
        [tasks] = family.sample(split, seed=0, trajectory=0, tasks=2)
        pixels = (tasks._minibatch(0)[0] * 16).round().to(torch.uint8).flatten(0, 1)
        assert {tuple(row) for row in pixels.tolist()} <= training


@pytest.mark.parametrize("spec", [QuadraticSpec(), MLPSpec()], ids=["quadratic", "mlp"])
def test_a_family_opened_for_training_cannot_reach_the_test_split(spec):
    for family in (open_for_training(spec), open_for_tuning(spec)):
        with pytest.raises(SplitHeldOut, match="test split"):
            family.sample(Split.TEST, seed=0, trajectory=0, tasks=1)
    with pytest.raises(SplitHeldOut, match="validation split"):
        open_for_testing(spec).sample(Split.VALIDATION, seed=0, trajectory=0, tasks=1)


MNIST_COORDINATES = {"mnist-mlp": 15_910, "mnist-mlp-200-steps": 15_910, "mnist-mlp-40-units": 31_810,
                     "mnist-mlp-2-layers": 16_330, "mnist-mlp-relu": 15_910}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_the_spec_counts_coordinates_as_the_tasks_do(name):
    spec = FAMILIES[name].tasks
    if getattr(spec, "dataset", None) == "mnist":
        assert spec.coordinates_per_task == MNIST_COORDINATES[name]  # 15,910 are the paper's network
    elif name.startswith("cifar"):  # the paper's networks, whose images may not be here
        counted = {"cifar10-conv": 13_722, "cifar5-conv": 13_557, "cifar2-conv": 13_458}
        assert spec.coordinates_per_task == counted[name]
    elif spec.kind == "style":  # whose data set is rarely here; tests/models/test_style.py draws some
        assert spec.coordinates_per_task == 3 * spec.size**2
    else:
        assert batch(spec, tasks=2).initial().numel() == 2 * spec.coordinates_per_task


@pytest.mark.parametrize("trained", ["digits-mlp", "mnist-mlp"])
def test_the_papers_other_networks_have_names_and_differ_in_what_their_names_say(trained):
    own = FAMILIES[trained]
    for name, changes in {
        "200-steps": {},
        "40-units": {"hidden": (40,)},
        "2-layers": {"hidden": (20, 20)},
        "relu": {"activation": "relu"},
    }.items():
        family = FAMILIES[f"{trained}-{name}"]
        assert family.tasks == own.tasks.model_copy(update=changes)
        horizon = 200 if name == "200-steps" else 100
        assert (family.recipe.horizon, family.evaluation.horizon) == (horizon, horizon)
        assert (family.overrides, family.recipe.rule) == ({}, own.recipe.rule)
