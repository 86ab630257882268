"""The core benchmark compares equals: the same tasks, the same meta-gradient; and it minds its own section."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.core import ceilings, problem, reference, report, step, tasks
from benchmarks.core.peers import ours, plain_torch, plain_torch_exact
from benchmarks.core.peers.base import Weights
from benchmarks.core.problem import Problem
from benchmarks.core.statistics import ratios
from gradsmith import LearnedOptimizer

SMALL = [
    Problem("quadratics", tasks=3, unroll_steps=5),
    Problem("mlp", unroll_steps=2),
    Problem("convnet", unroll_steps=2),
]


@pytest.fixture(params=SMALL, ids=lambda small: small.kind)
def loaded(request, tmp_path):
    path = tmp_path / "problem.npz"
    tasks.export(request.param, path)
    return problem.load(path)


@pytest.mark.parametrize("peer", [ours, plain_torch], ids=["ours", "plain"])
def test_peers_give_the_meta_gradient_of_the_float64_reference(loaded, peer):
    made = peer.make(loaded, reference.starting_weights(), 1)
    truth = reference.meta_gradient(loaded.problem, made.counted_losses)
    assert reference.difference(made.gradient(), truth) < 1e-4


EXACT = [
    Problem("quadratics", tasks=3, unroll_steps=5, rule="hyper"),
    Problem("digits", tasks=2, unroll_steps=3, rule="hyper"),
    Problem("digits", tasks=2, unroll_steps=3, rule="mlp"),
]


@pytest.mark.parametrize("small", EXACT, ids=lambda small: small.slug)
def test_peers_give_the_exact_meta_gradient_by_rules_of_their_own(small, tmp_path):
    tasks.export(small, tmp_path / "problem.npz")
    loaded, weights = problem.load(tmp_path / "problem.npz"), reference.starting_weights(small.rule)
    assert loaded.problem == small
    truth = reference.meta_gradient(small, small.unroll_steps)
    for peer in (ours, plain_torch_exact):
        made = peer.make(loaded, weights, 1)
        assert reference.difference(made.gradient(), truth) < 1e-4
        made.run(1)  # Adam, after the window
        assert reference.difference(made.gradient(), truth) > 1e-6


@pytest.mark.parametrize("peer", [ours, plain_torch], ids=["ours", "plain"])
def test_a_peer_asked_twice_goes_on_from_where_it_was_and_begins_again_at_the_horizon(tmp_path, peer):
    small = Problem("quadratics", tasks=2, unroll_steps=50)
    tasks.export(small, tmp_path / "problem.npz")
    made = peer.make(problem.load(tmp_path / "problem.npz"), reference.starting_weights(), 1)
    first = made.gradient()
    made.run(2)
    made.run(1)
    assert reference.difference(made.gradient(), first) > 1e-6  # Adam has moved the weights


def test_the_number_of_coordinates_is_what_the_tasks_have():
    for small in SMALL:
        assert tasks.batch_of(small).initial().shape == (small.coordinates,)


def test_a_wrong_meta_gradient_is_seen():
    truth: Weights = {"a": np.ones(3), "b": np.full(2, 1e-6)}
    assert reference.difference({"a": np.ones(3), "b": np.full(2, 2e-6)}, truth) == pytest.approx(1.0)
    nan = {"a": np.ones(3), "b": np.array([1e-6, np.nan])}
    assert np.isnan(reference.difference(nan, truth))  # though it is not in the first tensor
    with pytest.raises(ValueError, match="reference has"):
        reference.difference({"a": np.ones(3)}, truth)


def test_our_section_of_the_results_replaces_itself_and_nothing_else():
    others = "# Results\n\nfirst\n\n<!-- x:begin -->\nkept\n<!-- x:end -->\n"
    once = report.written(others, ["one"])
    twice = report.written(once + "after\n", ["two"])
    assert once.startswith(others)
    assert "one" not in twice
    assert twice == f"{others}\n{report.BEGIN}\ntwo\n{report.END}\nafter\n"
    with pytest.raises(ValueError, match="end mark"):
        report.written(f"{report.BEGIN}\ncut", ["new"])


def test_ratios_are_taken_pair_by_pair():
    assert ratios([2.0, 6.0, 4.0], [1.0, 2.0, 2.0]) == (2.0, 2.0, 3.0)


def test_the_limit_falls_with_work_and_rises_with_the_machine():
    rates = {"sgemm_flops": 29.6e9, "torch_sigmoids": 200e6}
    assert ceilings.limit(rates) == pytest.approx(0.5e6)  # a microsecond of products, a microsecond of activations
    assert ceilings.limit(rates, ceilings.FLOP_WITH_RECOMPUTE) < ceilings.limit(rates)
    forms = {"sigmoids_by_division": 200e6, "sigmoids_as_kernel": 400e6}
    assert ceilings.limit(rates | forms) == pytest.approx(1e6 / 1.5)  # by the fastest form
    assert ceilings.limit(rates | {"fma_flops": 2 * 29.6e9}) > ceilings.limit(rates)


def test_the_measured_step_is_the_same_optimizer_in_both_forms():
    weights = reference.starting_weights()
    torch.manual_seed(0)
    mine = step.model(10_000)
    theirs = [tensor.detach().clone().requires_grad_() for tensor in mine]
    plain = step.PlainLearnedOptimizer(theirs)
    plain.load(weights)
    learned = LearnedOptimizer(mine, ours.rule_with(weights))
    for number in range(3):
        for a, b in zip(mine, theirs, strict=True):
            a.grad = torch.full_like(a, 0.1 * (number + 1))
            b.grad = a.grad.clone()
        learned.step()
        plain.step()
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
