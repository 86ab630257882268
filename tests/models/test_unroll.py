"""The suffix-sum meta-gradient equals autograd through the whole unrolled graph."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from gradsmith.rules import LSTMRule, build
from models.adjoint import suffix_sums
from models.backends import NativeBackend, TorchBackend, backend_for
from models.training.rule import load_weights
from models.unroll import advance, begin, unroll_window
from tests.compiler import no_kernel
from tests.models import unrolled
from tests.models.unrolled import Averaging, make_rule, make_tasks, through_the_whole_graph

FAMILIES = ("quadratic", "mlp")
BACKENDS = {  # for so many coordinates
    "fused": lambda rule, _: TorchBackend(rule),
    "fused, in blocks": lambda rule, _: TorchBackend(rule, block_floats=6 * 304 * 70),
    "autograd": lambda rule, _: TorchBackend(rule, fused=False),
    # three of them, and the last is smaller
    "autograd, in blocks": lambda rule, coordinates: TorchBackend(
        rule, fused=False, block_floats=6 * rule.settings.costs().autograd * (coordinates * 7 // 20)
    ),
}
SETTINGS = (
    {},
    {"input": "raw", "layers": 1, "hidden_size": 7},
    {"layers": 3},
    {"kind": "mlp", "input": "momenta", "hidden_size": 5},
)


@functools.cache
def the_truth(family, settings):
    """For all backends: it does not depend on them."""
    return through_the_whole_graph(make_rule(**SETTINGS[settings]), make_tasks(family), steps=6, windows=3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("settings", SETTINGS, ids=repr)
def test_the_meta_gradient_is_that_of_the_whole_graph(family, backend, settings):
    rule, tasks = make_rule(**settings), make_tasks(family)
    made = BACKENDS[backend](rule, tasks.coordinates)
    expected, theta = the_truth(family, SETTINGS.index(settings))
    position = begin(tasks, made)
    for reference in expected:
        window, position = unroll_window(tasks, position, 6, made)
        error = (window.gradient - reference).abs().max() / reference.abs().max()
        assert error <= 1e-12
    torch.testing.assert_close(position.theta, theta, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_meta_gradient_is_the_finite_difference_when_the_input_is_held(family):
    """Central differences of the surrogate sum_t <D[t], update_t>, which IS the meta-loss to first order once the
    gradients that enter the rule are constants."""
    rule, tasks = make_rule(hidden_size=5), make_tasks(family, tasks=2)
    backend = TorchBackend(rule)
    position = begin(tasks, backend)
    rows = [position.gradient]
    advance(tasks, position, 5, backend, lambda _theta, _losses, gradient: rows.append(gradient))
    G = torch.stack(rows)
    D = suffix_sums(G[1:]) / tasks.tasks
    window, _ = unroll_window(tasks, position, 5, backend)
    weights = parameters_to_vector(rule.parameters()).detach().clone()

    def surrogate(at):
        load_weights(rule, at)
        state, total = position.memory, 0.0
        with torch.no_grad():
            for gradient, weight in zip(G[:-1], D, strict=True):
                update, state = rule(gradient, state)
                total += float(torch.dot(weight, update))
        return total

    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        direction = torch.randn(weights.shape, generator=generator, dtype=torch.float64)
        h = 1e-5
        slope = (surrogate(weights + h * direction) - surrogate(weights - h * direction)) / (2 * h)
        assert slope == pytest.approx(float(window.gradient @ direction), rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_native_backend_agrees_with_the_whole_graph(family, threads):
    rule = make_rule()
    single = build(rule.config())
    load_weights(single, parameters_to_vector(rule.parameters()).float())
    backend = backend_for(single, torch.float32, torch.device("cpu"), threads)
    if not isinstance(backend, NativeBackend):
        no_kernel(f"auto is {backend.name}")
    expected, theta = through_the_whole_graph(rule, make_tasks(family), steps=5, windows=2)
    tasks = make_tasks(family, dtype=torch.float32)
    position = begin(tasks, backend)
    before = [memory.clone() for memory in position.memory]
    for reference in expected:
        kept = position
        window, position = unroll_window(tasks, position, 5, backend)
        assert all(torch.equal(now, then) for now, then in zip(kept.memory, before, strict=True)), "it was only read"
        before = [memory.clone() for memory in position.memory]
        torch.testing.assert_close(window.gradient.double(), reference, rtol=1e-3, atol=1e-4 * reference.abs().max())
    torch.testing.assert_close(position.theta.double(), theta, rtol=1e-4, atol=1e-5)


def test_changed_weights_reach_the_native_backend():
    rule = build({"kind": "lstm"})
    backend = backend_for(rule, torch.float32, torch.device("cpu"))
    gradient, moved = torch.ones(40), []
    for seed in (0, 1):
        rule.initialise(torch.Generator().manual_seed(seed))
        theta = torch.zeros(40)
        backend.step(theta, gradient, backend.initial_memory(40))
        torch.testing.assert_close(theta, rule(gradient, rule.initial_state(40))[0].detach(), rtol=1e-4, atol=1e-7)
        moved.append(theta)
    assert not torch.equal(*moved)


def test_each_loss_counts_once_and_the_last_gradient_is_the_next_windows_first():
    rule, tasks = make_rule(), make_tasks("mlp", tasks=2)
    seen = []

    class Counted:
        def __getattr__(self, name):
            return getattr(tasks, name)

        def losses_and_gradient(self, theta, step):
            seen.append(step)
            return tasks.losses_and_gradient(theta, step)

    position = begin(Counted(), TorchBackend(rule))
    windows = []
    for _ in range(3):
        window, position = unroll_window(Counted(), position, 4, TorchBackend(rule))
        windows.append(window.losses)
    assert seen == list(range(13))  # theta_0, and then each of 3 x 4 steps once
    assert torch.cat(windows).shape == (12, 2)
    again = begin(tasks, TorchBackend(rule))
    again = advance(tasks, again, 12, TorchBackend(rule), lambda *_: None)
    assert torch.equal(again.theta, position.theta)
    assert torch.equal(again.losses, windows[-1][-1])


def test_suffix_sums():
    G = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    assert suffix_sums(G[1:]).tolist() == [[14.0], [12.0], [8.0]]


def test_a_rule_that_averages_over_its_task_is_replayed_whole():
    rule, tasks = Averaging(), make_tasks("quadratic")
    expected, _ = through_the_whole_graph(rule, tasks, steps=5, windows=2)
    # One number would be one coordinate at a time.
    backend = TorchBackend(rule, block_floats=1, parts=unrolled.FAMILIES["quadratic"].parts())
    position = begin(tasks, backend)
    for reference in expected:
        window, position = unroll_window(tasks, position, 5, backend)
        torch.testing.assert_close(window.gradient, reference, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("coordinates", "steps"), [(1, 1), (1, 20), (31, 3), (33, 1)])
@pytest.mark.parametrize("extreme", [0.0, 1e30, 1e-42])
def test_odd_shapes_and_extreme_gradients(coordinates, steps, extreme):
    rule = LSTMRule()
    rule.initialise(torch.Generator().manual_seed(0))
    G = torch.full((steps, coordinates), extreme)
    D = torch.ones(steps, coordinates)
    state = rule.initial_state(coordinates)
    fused = TorchBackend(rule, block_floats=20 * 304 * 8).window_gradient(state, G, D)
    plain = TorchBackend(rule, fused=False).window_gradient(state, G, D)
    assert torch.isfinite(fused).all()
    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)
