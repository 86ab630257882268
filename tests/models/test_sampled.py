"""Weight gradients that look at some coordinates of each tensor are those of all, in the mean."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from gradsmith.rules import build
from gradsmith.rules.chosen import Chosen
from gradsmith.rules.kernels.tensor_truth import drawn
from models.backends import NativeBackend, TorchBackend, backend_for, draw, sampled
from models.backends.native_tensors import NativeTensorBackend
from models.families.quadratic import QuadraticSpec
from models.meta_loss import MetaLoss
from models.spec import Recipe, Split
from models.task_spec import Part
from models.tasks.catalogue import open_for_training
from models.unroll import begin, unroll_window
from tests.compiler import compiled

LIKE = torch.zeros(0, dtype=torch.float64)


def test_small_tensors_are_whole_and_large_ones_have_distinct_coordinates():
    chosen = draw((30, 4, 100), 2, 10, seed=5, like=LIKE)
    one, other = chosen.places.split(24)
    assert torch.equal(other, one + 134)  # the same ones of each task
    parts = [one[one < 30], one[(one >= 30) & (one < 34)], one[one >= 34]]
    assert [len(part.unique()) for part in parts] == [10, 4, 10]
    assert torch.equal(chosen.places, chosen.places.sort().values)
    assert chosen.weights[:24].tolist() == [3.0] * 10 + [1.0] * 4 + [10.0] * 10
    assert torch.equal(draw((30, 4, 100), 2, 10, seed=5, like=LIKE).places, chosen.places)
    assert draw((10, 4), 2, 10, seed=5, like=LIKE) is None


def test_each_coordinate_is_as_likely():
    counts = torch.zeros(20)
    for seed in range(2000):
        counts[draw((20,), 1, 5, seed=seed, like=LIKE).places] += 1
    assert (counts / 2000 - 0.25).abs().max() < 5 * (0.25 * 0.75 / 2000) ** 0.5


def test_a_block_has_its_own_places():
    chosen = Chosen(torch.tensor([1, 4, 5, 9]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    places, weights = chosen.within(slice(4, 9), 10)
    assert (places.tolist(), weights.tolist()) == ([0, 1], [2.0, 3.0])
    assert torch.equal(chosen.within(slice(None), 10).places, chosen.places)


RULES = {
    "mlp": ({"kind": "mlp", "hidden_size": 4}, "exact"),
    "mlp, detached": ({"kind": "mlp", "hidden_size": 4}, "detached"),
    "mlp of momenta, in blocks": ({"kind": "mlp", "hidden_size": 4, "input": "momenta"}, "exact"),
    "lstm": ({"kind": "lstm", "hidden_size": 3}, "detached"),
}


@pytest.mark.parametrize("case", RULES)
def test_the_mean_over_all_draws_is_the_gradient_of_all_coordinates(case):
    config, mode = RULES[case]
    rule = build(config).double()
    rule.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in rule.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    spec = QuadraticSpec(dimension=5)
    [tasks] = open_for_training(spec).sample(Split.TRAIN, seed=0, trajectory=0, tasks=1, dtype=torch.float64)
    parts = (Part("a", (2,), "weight"), Part("b", (3,), "weight"))
    backend = TorchBackend(rule, parts=parts, graphs_bytes=0 if "blocks" in case else 10**6, block_floats=40)
    position = begin(tasks, backend)
    whole, after = unroll_window(tasks, position, 3, backend, MetaLoss(mode))
    found = []
    for pair in combinations(range(3), 2):  # two of the three coordinates of the second tensor
        chosen = Chosen(torch.tensor([0, 1, *(2 + place for place in pair)]), torch.tensor([1, 1, 1.5, 1.5]).double())
        window, moved = unroll_window(tasks, position, 3, sampled(backend, chosen), MetaLoss(mode))
        assert torch.equal(window.losses, whole.losses)
        assert torch.equal(moved.theta, after.theta)
        found.append(window.gradient)
    torch.testing.assert_close(torch.stack(found).mean(dim=0), whole.gradient, rtol=1e-9, atol=1e-12)
    assert (found[0] - whole.gradient).abs().max() > 1e-6


@compiled
@pytest.mark.parametrize("mode", ["exact", "detached"])
def test_an_mlp_learns_from_the_same_coordinates_on_the_kernel_as_in_torch(mode):
    """From the second window on, so that there is a memory; of three tasks with a tensor longer than a block."""
    rule = drawn(build({"kind": "mlp"}), 0).float()
    [tasks] = open_for_training(QuadraticSpec(dimension=50)).sample(Split.TRAIN, seed=0, trajectory=0, tasks=3)
    parts = (Part("a", (43,), "weight"), Part("b", (7,), "weight"))
    native = backend_for(rule, torch.float32, torch.device("cpu"), parts=parts, mode=mode)
    assert isinstance(native, NativeTensorBackend)
    chosen = draw((43, 7), 3, 9, seed=1, like=tasks.initial())
    assert chosen is not None
    found = []
    for backend in (native, TorchBackend(rule, parts=parts)):
        _, position = unroll_window(tasks, begin(tasks, backend), 4, backend, MetaLoss(mode))
        found.append(unroll_window(tasks, position, 4, sampled(backend, chosen), MetaLoss(mode))[0].gradient)
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4 * float(found[1].abs().max()))


@compiled
def test_the_kernel_samples_what_torch_samples():
    rule = build({"kind": "lstm"})
    rule.initialise(torch.Generator().manual_seed(0))
    [tasks] = open_for_training(QuadraticSpec()).sample(Split.TRAIN, seed=0, trajectory=0, tasks=30)
    native = backend_for(rule, torch.float32, torch.device("cpu"))
    assert isinstance(native, NativeBackend)
    chosen = draw((10,), 30, 4, seed=1, like=tasks.initial())
    assert chosen is not None
    gradients = []
    for backend in (native, TorchBackend(rule)):  # the same coordinates of each
        _, position = unroll_window(tasks, begin(tasks, backend), 5, backend)  # so that there is a memory
        gradients.append(unroll_window(tasks, position, 5, sampled(backend, chosen))[0].gradient)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5 * float(gradients[1].abs().max()))


@pytest.mark.parametrize(
    "recipe",
    [
        {"rule": {"kind": "hyper"}},
        {"rule": {"kind": "lstm"}, "meta_gradient": "exact"},
        {"rule": {"kind": "lstm", "input": "log_sign+tensor_scale"}},
        {"rule": {"kind": "mlp"}, "rules": {"bias": {"kind": "mlp"}}},
    ],
)
def test_a_rule_that_cannot_learn_from_some_coordinates_is_refused_in_words(recipe):
    with pytest.raises(ValueError, match="sampled_coordinates 8 is for one rule of kind mlp"):
        Recipe(**recipe, sampled_coordinates=8)
