"""The compiled hyper kernel against the rule in float64, through autograd."""

from __future__ import annotations

import pytest
import torch

from gradsmith.rules import Segments
from gradsmith.rules.configs import HyperConfig
from gradsmith.rules.hyper import HyperRule
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.native import BuildSettings, HyperKernel, hyper_kernel
from gradsmith.rules.kernels.native.hyper_trial import by_autograd, by_kernel, drawn
from gradsmith.rules.kernels.native.targets import Target, targets_here
from tests.compiler import COMPILER, compiled, no_kernel

pytestmark = compiled

STEPS = 7
AXES = {
    "one coordinate": Segments((1,)),
    "shorter than a vector, and empty": Segments((3, 0, 5)),
    "two tasks of a network": Segments((1280, 20, 200, 10), 2),
    "longer than a piece of a sum": Segments((9001, 4)),
}
RULES = {"2 x 24": {}, "1 x 5": {"layers": 1, "hidden_size": 5}, "3 x 33": {"layers": 3, "hidden_size": 33}}


def kernel_for(rule: HyperRule, target: Target, threads: int = 1) -> HyperKernel:
    cache = BuildSettings.from_environment().cache
    kernel = hyper_kernel(rule, threads=threads, settings=BuildSettings(cache, target.name, compiler=COMPILER))
    if isinstance(kernel, Refusal):
        no_kernel(kernel.reason)
    assert kernel.target == target
    return kernel


@pytest.mark.parametrize("settings", RULES)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("target", targets_here(), ids=lambda target: target.name)
def test_steps_and_both_gradients_are_those_of_the_rule(target, axis, settings):
    rule, segments = HyperRule(HyperConfig(**RULES[settings])), AXES[axis]
    truth = drawn(rule, 3)
    G, D = torch.randn(2, STEPS, segments.coordinates, generator=torch.Generator().manual_seed(1))
    found = by_kernel(kernel_for(rule, target), truth, segments, G, D)
    for one, expected in zip(found, by_autograd(truth, segments, G.double(), D.double()), strict=True):
        torch.testing.assert_close(one.double(), expected, rtol=1e-4, atol=3e-5 * float(expected.abs().max()))


def test_bits_do_not_depend_on_threads_nor_on_company():
    rule, target = HyperRule(), targets_here()[0]
    truth = drawn(rule, 3)
    whole, alone = Segments((6000, 3000), 2), Segments((6000, 3000))
    G, D = torch.randn(2, 3, whole.coordinates, generator=torch.Generator().manual_seed(1))
    theta, q, weights = by_kernel(kernel_for(rule, target), truth, whole, G, D)
    again = by_kernel(kernel_for(rule, target, threads=3), truth, whole, G, D)
    assert all(map(torch.equal, (theta, q, weights), again))
    own_theta, own_q, _ = by_kernel(kernel_for(rule, target), truth, alone, G[:, :9000], D[:, :9000])
    assert torch.equal(own_theta, theta[:9000])
    assert torch.equal(own_q, q[:, :9000])


def test_what_never_had_a_gradient_stays_exactly():
    rule, segments = HyperRule(), Segments((40,))
    G = torch.randn(5, 40, generator=torch.Generator().manual_seed(1))
    G[:, ::3] = 0
    theta, _, _ = by_kernel(kernel_for(rule, targets_here()[0]), drawn(rule, 3), segments, G, G)
    assert (theta[::3] == 0).all()
    assert (theta[1::3] != 0).all()


def test_a_gradient_that_is_not_finite_is_not_hidden():
    rule, segments = HyperRule(), Segments((40, 40))
    G = torch.randn(2, 80, generator=torch.Generator().manual_seed(1))
    G[0, 7] = torch.nan
    theta, _, _ = by_kernel(kernel_for(rule, targets_here()[0]), drawn(rule, 3), segments, G, G)
    assert theta[:40].isnan().all()
    assert theta[40:].isfinite().all()


def test_wrong_tensors_are_refused():
    rule, segments = HyperRule(), Segments((5, 3))
    kernel = kernel_for(rule, targets_here()[0])
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
