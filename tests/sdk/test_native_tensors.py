"""The compiled kernels of rules that look at tensors against the rules in float64, through autograd."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gradsmith.rules import Segments, build
from gradsmith.rules.chosen import Chosen
from gradsmith.rules.configs import HyperConfig
from gradsmith.rules.hyper import HyperRule
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.native import BuildSettings, TensorKernel, tensor_kernel
from gradsmith.rules.kernels.native.build import built_here
from gradsmith.rules.kernels.native.targets import Target, targets_here
from gradsmith.rules.kernels.native.tensor_library import TensorLibrary
from gradsmith.rules.kernels.native.tensor_trial import by_kernel
from gradsmith.rules.kernels.tensor_truth import KernelRule, by_autograd, drawn
from gradsmith.rules.mlp import MLPRule
from tests.compiler import COMPILER, compiled, no_kernel

pytestmark = compiled

STEPS = 7
TARGETS = targets_here()
AXES = {
    "one coordinate": Segments((1,)),
    "shorter than a vector, and empty": Segments((3, 0, 5)),
    "two tasks of a network": Segments((1280, 20, 200, 10), 2),
    "longer than a piece of a sum": Segments((9001, 4)),
    "matrices": Segments((1280, 20, 200, 10, 12), 2, shapes=((64, 20), (20,), (20, 10), (10,), (2, 2, 3))),
    "a long matrix": Segments((9002, 4), shapes=((2, 4501), (4, 1))),
}
RULES = {
    "hyper, 2 x 24": {"kind": "hyper"},
    "hyper, 1 x 5": {"kind": "hyper", "layers": 1, "hidden_size": 5},
    "hyper, 3 x 33": {"kind": "hyper", "layers": 3, "hidden_size": 33},
    "hyper, 2 x 24, knows its steps": {"kind": "hyper", "clock": "time+fraction"},
    "hyper, 2 x 24, Muon's direction": {"kind": "hyper", "direction": "muon"},
    "hyper, 1 x 5, Muon's direction, knows its steps": {
        "kind": "hyper",
        "layers": 1,
        "hidden_size": 5,
        "clock": "time+fraction",
        "direction": "muon",
    },
    "mlp, 2 x 24": {"kind": "mlp"},
    "mlp, 1 x 5, no memory of updates": {
        "kind": "mlp",
        "layers": 1,
        "hidden_size": 5,
        "input": "tensor_scale+fraction",
    },
    "mlp, 3 x 33, one scale": {
        "kind": "mlp",
        "layers": 3,
        "hidden_size": 33,
        "input": "momenta+alignment",
        "output_scale": 0.5,
    },
}
BOTH = ("hyper, 2 x 24", "hyper, 2 x 24, Muon's direction", "mlp, 2 x 24")
"""Those of which all tests are made; the others have branches of their own."""
ROUGH = (
    "hyper, 1 x 5, Muon's direction, knows its steps",
    "mlp, 1 x 5, no memory of updates",
    "mlp, 3 x 33, one scale",
)
"""Those whose kernels no other test needs."""
COMBINED = [(target, name) for target in TARGETS for name in RULES if target is TARGETS[0] or name in BOTH]


def rule_of(name: str) -> KernelRule:
    rule = build(RULES[name])
    assert isinstance(rule, HyperRule | MLPRule)
    return rule


def kernel_for(rule: KernelRule, target: Target, threads: int = 1, *, rough: bool = False) -> TensorKernel:
    """rough: compiled faster, for loops and tails that are the same code in kernels compiled as users' are"""
    cache = BuildSettings.from_environment().cache
    if rough:
        assert rule.settings.program is not None
        target = replace(target, name=f"rough-{target.name}", flags=(*target.flags, "-O1"))
        path = built_here(rule.settings.program, target, BuildSettings(cache, compiler=COMPILER))
        return TensorKernel(rule, TensorLibrary(path), target, threads=threads)
    kernel = tensor_kernel(rule, threads=threads, settings=BuildSettings(cache, target.name, compiler=COMPILER))
    if isinstance(kernel, Refusal):
        no_kernel(kernel.reason)
    assert kernel.target == target
    return kernel


@pytest.mark.long
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(("target", "name"), COMBINED, ids=lambda value: getattr(value, "name", value))
def test_steps_and_both_gradients_are_those_of_the_rule(target, name, axis):
    rule, segments = rule_of(name), AXES[axis]
    truth = drawn(rule, 3)
    G, D = torch.randn(2, STEPS, segments.coordinates, generator=torch.Generator().manual_seed(1))
    found = by_kernel(kernel_for(rule, target, rough=name in ROUGH), truth, segments, G, D)
    for one, expected in zip(found, by_autograd(truth, segments, G.double(), D.double()), strict=True):
        torch.testing.assert_close(one.double(), expected, rtol=1e-4, atol=3e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", BOTH)
def test_bits_do_not_depend_on_threads_nor_on_company(name):
    rule = rule_of(name)
    truth = drawn(rule, 3)
    whole, alone = Segments((6000, 3000), 2), Segments((6000, 3000))
    G, D = torch.randn(2, 3, whole.coordinates, generator=torch.Generator().manual_seed(1))
    theta, q, weights = by_kernel(kernel_for(rule, TARGETS[0]), truth, whole, G, D)
    again = by_kernel(kernel_for(rule, TARGETS[0], threads=3), truth, whole, G, D)
    assert all(map(torch.equal, (theta, q, weights), again))
    own_theta, own_q, _ = by_kernel(kernel_for(rule, TARGETS[0]), truth, alone, G[:, :9000], D[:, :9000])
    assert torch.equal(own_theta, theta[:9000])
    assert torch.equal(own_q, q[:, :9000])


@pytest.mark.parametrize("name", BOTH)
def test_what_never_had_a_gradient_stays_exactly(name):
    rule, segments = rule_of(name), Segments((40,))
    G = torch.randn(5, 40, generator=torch.Generator().manual_seed(1))
    G[:, ::3] = 0
    theta, _, _ = by_kernel(kernel_for(rule, TARGETS[0]), drawn(rule, 3), segments, G, G)
    assert (theta[::3] == 0).all()
    assert (theta[1::3] != 0).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", BOTH)
def test_a_gradient_that_is_not_finite_is_not_hidden(name, bad):
    rule, segments = rule_of(name), Segments((40, 40))
    G = torch.randn(2, 80, generator=torch.Generator().manual_seed(1))
    G[0, 7] = bad
    theta, _, _ = by_kernel(kernel_for(rule, TARGETS[0]), drawn(rule, 3), segments, G, G)
    assert theta[7].isnan()
    assert theta[:40].isnan().all() or not torch.isnan(torch.tensor(bad))
    assert theta[40:].isfinite().all()


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e-10, 1e10, 1e18])
def test_an_mlp_sees_gradients_of_any_size_as_the_rule_does(size):
    """Squares that underflow count as no gradient, in the kernel as in the rule, which is asked in float32."""
    rule, segments = rule_of("mlp, 2 x 24"), Segments((24, 24))
    truth = drawn(rule, 3)
    G = torch.randn(3, 48, generator=torch.Generator().manual_seed(1)) * size
    theta, _, _ = by_kernel(kernel_for(rule, TARGETS[0]), truth, segments, G, G)
    expected, _, _ = by_autograd(truth.float(), segments, G, torch.ones_like(G))
    torch.testing.assert_close(theta, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def sampled_back(chosen, threads=1):
    """Back through one step of an mlp rule, its weights learning from all coordinates and then from the chosen ones:
    the gradient of the weights, that of the gradient, and the worths."""
    rule, segments = rule_of("mlp, 2 x 24"), Segments((9001, 4, 0, 40))
    kernel, N = kernel_for(rule, TARGETS[0], threads), segments.coordinates
    weights, sizes = kernel.weights(drawn(rule, 3)), kernel.sizes(segments)
    gradient, worth = torch.randn(2, N, generator=torch.Generator().manual_seed(1))
    state = rule.initial_state(N, tensors=segments.rows)
    record, outputs = kernel.record(N, segments.rows), kernel.outputs(N, segments.rows)
    kernel.step(weights, sizes, torch.zeros(N), gradient, state, record, outputs)
    found = []
    for sampled in (False, True):
        total, worths = torch.zeros(weights.shape, dtype=torch.float64), torch.ones(3, N)
        where = (worth, worths, total)
        if sampled:
            q = kernel.back_sampled(weights, sizes, (record, outputs), *where, chosen)
        else:
            q = kernel.back(weights, sizes, record, *where)
        found.append((total, q, worths))
    return found


def test_weights_that_learn_from_all_coordinates_as_chosen_ones_learn_what_they_do():
    (whole, *rest), (found, *others) = sampled_back(Chosen(torch.arange(9045), torch.ones(9045)))
    assert all(map(torch.equal, rest, others))
    torch.testing.assert_close(found, whole, rtol=1e-6, atol=1e-6 * float(whole.abs().max()))


def test_chosen_coordinates_count_as_often_as_they_stand_for_others_and_bits_do_not_depend_on_threads():
    """Halves add up to the whole, each counted twice to twice the whole; what updates are worth is not sampled."""
    halves = [Chosen(torch.arange(first, 9045, 2), torch.full((len(range(first, 9045, 2)),), 2.0)) for first in (0, 1)]
    found = [sampled_back(half) for half in halves]
    (whole, *rest), (first, *others) = found[0]
    assert all(map(torch.equal, rest, others))
    torch.testing.assert_close(first + found[1][1][0], 2 * whole, rtol=1e-5, atol=1e-6 * float(whole.abs().max()))
    assert (first - whole).abs().max() > 1e-3 * whole.abs().max()
    assert torch.equal(sampled_back(halves[0], threads=3)[1][0], first)


@pytest.mark.parametrize("places", [[3, 1], [-1, 2], [5, 9045], [4, 4]])
def test_places_that_do_not_rise_within_the_axis_are_refused(places):
    with pytest.raises(ValueError, match="places must rise within the 9045 coordinates"):
        sampled_back(Chosen(torch.tensor(places), torch.ones(2)))


def test_wrong_tensors_are_refused():
    rule, segments = rule_of("hyper, 2 x 24"), Segments((5, 3))
    kernel = kernel_for(rule, TARGETS[0])
    weights, sizes = kernel.weights(rule), kernel.sizes(segments)
    state = rule.initial_state(8, tensors=2)
    with pytest.raises(ValueError, match=r"gradient must be a torch.float32 tensor of shape \(8,\)"):
        kernel.step(weights, sizes, torch.zeros(8), torch.zeros(7), state)
    with pytest.raises(ValueError, match="theta must be contiguous"):
        kernel.step(weights, sizes, torch.zeros(16)[::2], torch.zeros(8), state)
    with pytest.raises(ValueError, match="the tensors have 8 coordinates together, and theta has 7"):
        kernel.step(weights, sizes, torch.zeros(7), torch.zeros(7), rule.initial_state(7, tensors=2))
    with pytest.raises(ValueError, match="record must be"):
        kernel.step(weights, sizes, torch.zeros(8), torch.zeros(8), state, kernel.record(7, 2))
    with pytest.raises(ValueError, match="make one for that rule"):
        kernel.weights(HyperRule(HyperConfig(hidden_size=5)))


def test_a_kernel_is_not_bound_to_a_rule_that_it_was_not_compiled_for():
    kernel = kernel_for(rule_of("mlp, 2 x 24"), TARGETS[0])
    with pytest.raises(ValueError, match=r"compiled for 0 weights, and .* has 6"):
        TensorKernel(rule_of("mlp, 1 x 5, no memory of updates"), kernel.library, kernel.target)


@pytest.mark.parametrize("settings", [{"input": "momenta"}, {"input": "momenta+raw+alignment"}, {"hidden_size": 129}])
def test_mlp_rules_that_no_kernel_runs_are_refused(settings):
    refusal = tensor_kernel(build({"kind": "mlp", **settings}))
    assert isinstance(refusal, Refusal)
    if "turned off" not in refusal.reason:
        assert "it runs mlp rules of at most 128 units" in refusal.reason
