"""Muon's direction of learned rules, against what the iteration does to singular values, autograd through
that, and torch.optim.Muon."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradsmith import LearnedOptimizer
from gradsmith.rules import HyperRule, Rule, Segments, build
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.native import tensor_kernel
from gradsmith.rules.orthogonal import orthogonalized, orthogonalized_tensors
from gradsmith.rules.weights import dumps, loads
from tests.compiler import no_kernel

SHAPES = ((6, 4), (4,), (4, 6), (6, 4), (1, 3), (2, 2, 3))  # the last is a matrix of 2 and 6, and (1, 3) is none
RULES: tuple[dict[str, Any], ...] = (
    {"kind": "hyper", "direction": "muon"},
    {"kind": "schedule", "direction": "muon", "over": "fraction"},
)

torch.set_num_threads(1)


def some(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_singular_values(matrix: Tensor) -> Tensor:
    """What the iteration makes of one matrix: it changes its singular values alone, each by the same polynomial."""
    left, values, right = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ torch.diag(values) @ right


def fresh(config: dict[str, Any]) -> Rule:
    rule = build({**config, "output_scale": 0.1}).double()
    rule.initialise(torch.Generator().manual_seed(0))
    return rule


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (4, 4)])
def test_it_changes_singular_values_and_no_singular_vector(shape: tuple[int, int]) -> None:
    matrices = some((2, *shape))
    expected = torch.stack([by_singular_values(matrix) for matrix in matrices])
    torch.testing.assert_close(orthogonalized(matrices), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (4, 4)])
def test_the_way_back_is_that_of_the_singular_values(shape: tuple[int, int]) -> None:
    matrix, worth = some(shape).requires_grad_(), some(shape, seed=1)
    (expected,) = torch.autograd.grad((by_singular_values(matrix) * worth).sum(), matrix)
    (found,) = torch.autograd.grad((orthogonalized(matrix[None])[0] * worth).sum(), matrix)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_a_matrix_of_zeros_stays_and_has_a_finite_derivative() -> None:
    matrix = torch.zeros(1, 3, 4, dtype=torch.float64, requires_grad=True)
    made = orthogonalized(matrix)
    assert not made.any()
    assert not torch.autograd.grad(made.sum(), matrix)[0].isnan().any()


def test_each_matrix_of_each_task_is_orthogonalized_alone() -> None:
    sizes = tuple(map(math.prod, SHAPES))
    segments = Segments(sizes, 2, shapes=SHAPES)
    values = some((segments.coordinates,))
    found = torch.split(orthogonalized_tensors(values, segments), sizes * 2)
    for piece, of, shape in zip(found, torch.split(values, sizes * 2), SHAPES * 2, strict=True):
        if len(shape) == 1 or 1 in shape:
            assert not piece.any()
            continue
        matrix = of.view(shape[0], -1)
        expected = 0.2 * math.sqrt(max(matrix.shape)) * by_singular_values(matrix)
        torch.testing.assert_close(piece.view(matrix.shape), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("config", "momentum"), list(zip(RULES, (0.9, 0.95), strict=True)), ids=repr)
def test_a_fresh_rule_is_muon(config: dict[str, Any], momentum: float) -> None:
    """Step by step: momentum written out here, its singular values changed, and the rate of match_rms_adamw."""
    ours = [nn.Parameter(some((6, 4))), nn.Parameter(some((3,)))]
    optimizer = LearnedOptimizer(ours, loads(dumps(fresh(config))), steps=8)
    theirs, mean = ours[0].detach().clone(), torch.zeros(6, 4, dtype=torch.float64)
    for seed in range(4):
        gradient = some((6, 4), seed)
        ours[0].grad, ours[1].grad = gradient.clone(), some((3,), seed)
        optimizer.step()
        mean = momentum * mean + (1 - momentum) * gradient
        ahead = momentum * mean + (1 - momentum) * gradient
        theirs -= 0.1 * 0.2 * math.sqrt(6) * by_singular_values(ahead)
        torch.testing.assert_close(ours[0].detach(), theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("config", "momentum"), list(zip(RULES, (0.9, 0.95), strict=True)), ids=repr)
def test_so_torch_says_but_for_its_bfloat16(config: dict[str, Any], momentum: float) -> None:
    ours, theirs = (nn.Parameter(some((6, 4)).float()) for _ in range(2))
    start = ours.detach().clone()
    optimizer = LearnedOptimizer([ours], fresh(config).float(), steps=8)
    reference = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0, momentum=momentum, adjust_lr_fn="match_rms_adamw")
    for seed in range(4):
        ours.grad, theirs.grad = some((6, 4), seed).float(), some((6, 4), seed).float()
        optimizer.step()
        reference.step()
    assert (ours - theirs).norm() < 0.03 * (ours - start).norm()


def test_vectors_of_a_fresh_schedule_have_adam() -> None:
    ours, theirs = (nn.Parameter(some((5,))) for _ in range(2))
    optimizer = LearnedOptimizer([ours], fresh(RULES[1]), steps=8)
    reference = torch.optim.Adam([theirs], lr=0.1)
    for seed in range(4):
        ours.grad, theirs.grad = some((5,), seed), some((5,), seed)
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("config", RULES, ids=repr)
def test_a_weight_that_never_had_a_gradient_does_not_move(config: dict[str, Any]) -> None:
    """Though its row and column have."""
    parameter = nn.Parameter(some((6, 4)))
    before = parameter.detach().clone()
    optimizer = LearnedOptimizer([parameter], fresh(config), steps=8)
    for seed in range(3):
        parameter.grad = some((6, 4), seed)
        parameter.grad[2, 1] = 0
        optimizer.step()
    moved = (parameter != before).flatten().tolist()
    assert [place for place, has in enumerate(moved) if not has] == [2 * 4 + 1]


def test_files_of_rules_without_it_are_as_before() -> None:
    assert b"direction" not in dumps(HyperRule())
    muon = loads(dumps(build(RULES[0])))
    assert isinstance(muon, HyperRule)
    assert muon.settings.direction == "muon"
    assert sum(weight.numel() for weight in muon.parameters()) == 1285


def test_large_matrices_are_left_to_torch() -> None:
    """Whose products of large matrices are faster."""
    kernel = tensor_kernel(build(RULES[0]))
    if isinstance(kernel, Refusal):
        no_kernel(kernel.reason)
    assert kernel.suits([(784, 20), (20,), (128, 128), (1, 500)])
    assert not kernel.suits([(20,), (129, 130)])
    adams = tensor_kernel(HyperRule())
    assert not isinstance(adams, Refusal)
    assert adams.suits([(1000, 1000)])
