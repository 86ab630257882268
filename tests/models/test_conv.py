"""Convolutional networks: against torch.nn in float64, at every norm and activation, and with the right statistics."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from gradsmith.rules.assignment import best_match
from models.families import FAMILIES
from models.families.conv import ConvSpec
from models.families.conv.tasks import ConvBatch
from models.spec import Split
from models.tasks import conformance
from models.tasks.base import TaskBatch
from models.tasks.catalogue import open_for_training
from models.tasks.image_batch import OUTER_SHARE

SMALL = {"channels": (4, 6), "hidden": (5,), "batch_size": 9, "groups": 1}
SPECS = [
    ConvSpec(**SMALL),
    ConvSpec(**SMALL | {"norm": "group", "groups": 2, "hidden": (6,)}, activation="elu"),
    ConvSpec(**SMALL, norm="none", activation="tanh"),
    ConvSpec(**SMALL | {"hidden": ()}, activation="sigmoid"),
    ConvSpec(**SMALL | {"hidden": (3, 4), "channels": (3, 2, 5)}, labels=(7, 2, 4), activation="tanh"),
]
ACTIVATIONS = {"relu": nn.ReLU, "elu": nn.ELU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


def batch(spec: ConvSpec, tasks: int = 2, split: Split = Split.TRAIN, dtype: torch.dtype = torch.float64) -> ConvBatch:
    [drawn] = open_for_training(spec).sample(split, seed=1, trajectory=2, tasks=tasks, dtype=dtype)
    assert isinstance(drawn, ConvBatch)
    return drawn


def place(tasks: TaskBatch) -> Tensor:
    """Beside the start, where some scales are negative and no shift is zero."""
    generator = torch.Generator().manual_seed(3)
    start = tasks.initial()
    return start + 0.8 * torch.randn(start.shape, generator=generator, dtype=torch.float64).to(start.dtype)


def model_of(spec: ConvSpec) -> nn.Sequential:
    """The network as a user of torch.nn writes it. Its parameters are in the order of `ConvSpec.parts`."""
    layers: list[nn.Module] = []
    biased = spec.norm == "none"

    def finished(width: int, norm: type[nn.BatchNorm1d | nn.BatchNorm2d]) -> None:
        if spec.norm == "batch":
            layers.append(norm(width, track_running_stats=False))
        elif spec.norm == "group":
            layers.append(nn.GroupNorm(spec.groups, width))
        layers.append(ACTIVATIONS[spec.activation]())

    into = spec.colours
    for width in spec.channels:
        layers.append(nn.Conv2d(into, width, 3, padding=1, bias=biased))
        finished(width, nn.BatchNorm2d)
        layers.append(nn.MaxPool2d(2))
        into = width
    layers.append(nn.Flatten())
    into = spec.dense_sizes[0]
    for units in spec.hidden:
        layers.append(nn.Linear(into, units, bias=biased))
        finished(units, nn.BatchNorm1d)
        into = units
    layers.append(nn.Linear(into, spec.classes))
    return nn.Sequential(*layers).double()


def filled(spec: ConvSpec, theta: Tensor) -> nn.Sequential:
    """That network with one task's coordinates."""
    model = model_of(spec)
    pieces = theta.split([part.size for part in spec.parts()])
    with torch.no_grad():
        for part, piece, parameter in zip(spec.parts(), pieces, model.parameters(), strict=True):
            value = piece.view(part.shape)
            parameter.copy_(value.t() if part.role == "weight" and len(part.shape) == 2 else value)
    return model


def gradient_of(spec: ConvSpec, model: nn.Module) -> Tensor:
    parts = zip(spec.parts(), model.parameters(), strict=True)
    return torch.cat(
        [(p.grad.t() if part.role == "weight" and len(part.shape) == 2 else p.grad).reshape(-1) for part, p in parts]
    )


def images_of(tasks: ConvBatch, task: int, step: int) -> tuple[Tensor, Tensor]:
    pixels, labels = tasks._minibatch(step)
    spec = tasks.spec
    return pixels[task].view(-1, spec.side, spec.side, spec.colours).permute(0, 3, 1, 2), labels[task]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.norm}-{spec.activation}-{len(spec.channels)}")
def test_losses_gradients_and_products_are_those_of_torch_nn(spec: ConvSpec) -> None:
    tasks = batch(spec)
    theta = place(tasks)
    generator = torch.Generator().manual_seed(4)
    v = torch.randn(theta.shape, generator=generator, dtype=torch.float64)
    losses, gradient = tasks.losses_and_gradient(theta, 5)
    product = tasks.hessian_vector(theta, 5, v)
    own = spec.coordinates_per_task
    for task in range(2):
        mine = slice(task * own, (task + 1) * own)
        model = filled(spec, theta[mine])
        images, labels = images_of(tasks, task, 5)
        loss = functional.cross_entropy(model(images), labels)
        parameters = list(model.parameters())
        slopes = torch.autograd.grad(loss, parameters, create_graph=True)
        directions = [p.detach().clone() for p in filled(spec, v[mine]).parameters()]
        seconds = torch.autograd.grad(slopes, parameters, directions, materialize_grads=True)
        for found, truth in ((gradient, slopes), (product, seconds)):
            for parameter, value in zip(parameters, truth, strict=True):
                parameter.grad = value.detach()
            torch.testing.assert_close(found[mine], gradient_of(spec, model), rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(losses[task], loss.detach(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[1]], ids=["batch", "group"])
def test_tasks_at_once_as_a_gpu_computes_them_are_tasks_one_by_one(spec: ConvSpec) -> None:
    one_by_one, at_once = batch(spec, 3), batch(spec, 3)
    at_once._at_once = 3
    theta = place(one_by_one)
    for found, truth in zip(
        at_once.losses_and_gradient(theta, 1), one_by_one.losses_and_gradient(theta, 1), strict=True
    ):
        torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-12)
    v = theta.flip(0)
    products = [each.hessian_vector(theta, 1, v) for each in (at_once, one_by_one)]
    torch.testing.assert_close(*products, rtol=1e-9, atol=1e-12)


def test_held_out_images_are_normalized_by_their_own_statistics() -> None:
    spec = ConvSpec(**SMALL | {"batch_size": 100})
    tasks = batch(spec, split=Split.VALIDATION)
    theta = place(tasks)
    found = tasks.held_out(theta)
    images = tasks._held_out
    assert len(images) == 360  # four batches of ninety, the size next to a minibatch's
    for task, own in enumerate(theta.view(2, -1)):
        model = filled(spec, own)
        pixels = images.pixels.double().div(16).view(-1, 1, 8, 8)
        logits = torch.cat([model(part) for part in pixels.tensor_split(4)])
        expected = functional.cross_entropy(logits, images.labels)
        torch.testing.assert_close(found.losses[task], expected.detach(), rtol=1e-10, atol=0)
        assert float(found.accuracies[task]) == pytest.approx(
            float((logits.argmax(1) == images.labels).double().mean())
        )


def test_weights_start_by_their_units_inputs_and_the_rest_at_rest() -> None:
    spec = ConvSpec(channels=(16, 16), hidden=(64,), start_scale=2.0)
    theta = batch(spec, 40).initial().view(40, -1)
    pieces = dict(
        zip([part.name for part in spec.parts()], theta.split([p.size for p in spec.parts()], 1), strict=True)
    )
    for name, inputs in (("conv0", 9), ("conv1", 16 * 9), ("dense0", 64), ("dense1", 64)):
        assert float(pieces[f"{name}.weight"].std()) == pytest.approx(2 / inputs**0.5, rel=0.05)
    assert bool((pieces["conv0.scale"] == 1).all())
    assert bool((pieces["dense1.bias"] == 0).all())


def test_labels_are_a_part_of_the_classes_and_count_from_zero() -> None:
    everything, some = batch(ConvSpec()), batch(ConvSpec(labels=(7, 2)))
    assert len(some._training) == sum(int((everything._training.labels == label).sum()) for label in (7, 2))
    assert set(some._training.labels.tolist()) == {0, 1}
    sevens = everything._training.pixels[everything._training.labels == 7]
    assert torch.equal(some._training.pixels[some._training.labels == 0], sevens)
    assert dict(zip([p.name for p in some.spec.parts()], some.spec.parts(), strict=True))["dense1.bias"].shape == (2,)


def test_a_parted_task_keeps_a_part_of_its_images_for_the_outer_losses() -> None:
    parted = batch(SPECS[0]).parted()
    assert isinstance(parted.outer, ConvBatch)
    assert parted._own_images is not None
    assert parted.outer._own_images is not None
    assert parted.outer._own_images.shape[1] == round(OUTER_SHARE * len(parted._training))
    for inner, outer in zip(parted._own_images.tolist(), parted.outer._own_images.tolist(), strict=True):
        assert sorted(inner + outer) == list(range(len(parted._training)))


def test_what_a_norm_or_a_bias_adds_follows_its_layer() -> None:
    patterns = ["conv*", "dense*"]
    for norm in ("batch", "none"):
        for part in ConvSpec(norm=norm).parts():
            layer = part.name.split(".")[0].rstrip("0123456789")
            assert best_match(patterns, part.name, (part.role,)) == f"{layer}*"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channels": (4, 4, 4, 4)}, "images of digits are 8 x 8, and 4 poolings leave nothing of them; send 3"),
        ({"norm": "group", "groups": 3}, "groups is 3, which does not divide all of channels"),
        ({"labels": (1,)}, "two classes or more"),
        ({"labels": (1, 1)}, "each once"),
    ],
)
def test_a_network_that_cannot_be_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ConvSpec.model_validate(changes)


def test_the_papers_network_has_its_layers() -> None:
    spec = FAMILIES["cifar10-conv"].tasks
    shapes = {part.name: part.shape for part in spec.parts() if part.role == "weight"}
    assert shapes == {
        "conv0.weight": (16, 3, 3, 3),
        "conv1.weight": (16, 16, 3, 3),
        "conv2.weight": (16, 16, 3, 3),
        "dense0.weight": (256, 32),
        "dense1.weight": (32, 10),
    }
    assert FAMILIES["cifar5-conv"].tasks.classes == 5  # type: ignore[attr-defined]


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[1]], ids=["batch", "group"])
def test_every_promise_of_a_family_is_kept(spec: ConvSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = {name: check for name, check in conformance.CHECKS.items() if name != "memory"}
    monkeypatch.setattr(conformance, "CHECKS", checks)
    assert dict(conformance.conformance(conformance.Subject(spec))) == dict.fromkeys(checks)
