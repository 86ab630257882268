"""Matrix factorizations against the closed form of a complete matrix, and autograd by what families promise."""

from __future__ import annotations

import pytest
import torch

from models.families.factorization import FactorizationSpec
from models.families.factorization.tasks import FactorizationBatch
from models.spec import Split
from models.tasks.catalogue import open_for_training
from models.tasks.conformance import CHECKS, Subject

SMALL = FactorizationSpec(rows=4, columns=5, rank=2, true_rank=3, l2=0.3)


def drawn(spec: FactorizationSpec, tasks: int = 3) -> FactorizationBatch:
    [batch] = open_for_training(spec).sample(Split.TRAIN, seed=1, trajectory=0, tasks=tasks, dtype=torch.float64)
    assert isinstance(batch, FactorizationBatch)
    return batch


@pytest.mark.parametrize("promise", sorted(CHECKS.keys() - {"memory"}))
def test_it_keeps_what_families_promise(promise: str) -> None:
    CHECKS[promise](Subject(SMALL))


def test_the_product_with_the_hessian_is_autograds() -> None:
    tasks = drawn(SMALL)
    theta = tasks.initial()
    v = torch.linspace(-1, 1, theta.numel(), dtype=torch.float64)
    free = theta.clone().requires_grad_()
    (slope,) = torch.autograd.grad(tasks.losses(free, 0).sum(), free, create_graph=True)
    torch.testing.assert_close(tasks.hessian_vector(theta, 0, v), torch.autograd.grad(slope @ v, free)[0])


def test_the_minimum_of_a_complete_matrix_has_its_singular_values_less_l2() -> None:
    """Srebro, Rennie and Jaakkola 2004: the least loss is that of soft-thresholded singular values."""
    tasks = drawn(SMALL.model_copy(update={"known": 1.0}))
    U, s, V = torch.linalg.svd(tasks.M, full_matrices=False)
    kept = (s[:, :2] - 0.3).clamp(min=0)
    left, right = (each[:, :, :2] * kept.sqrt().unsqueeze(1) for each in (U, V.transpose(1, 2)))
    theta = torch.cat([left.flatten(1), right.flatten(1)], dim=1).flatten()
    losses, gradient = tasks.losses_and_gradient(theta, 0)
    assert float(gradient.abs().max()) < 1e-12
    truth = (s - torch.cat([kept, torch.zeros_like(s[:, 2:])], dim=1)).square().sum(1) / 2 + 0.3 * kept.sum(1)
    torch.testing.assert_close(losses, truth)


def test_the_known_entries_are_as_many_as_it_says_and_count_as_much_as_all() -> None:
    tasks = drawn(FactorizationSpec(known=0.3), tasks=200)
    assert float((tasks.C > 0).double().mean()) == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(tasks.C.sum(dim=(1, 2)), torch.full((200,), 300.0, dtype=torch.float64))
    assert float(tasks.M.std()) == pytest.approx(1, abs=0.1)
