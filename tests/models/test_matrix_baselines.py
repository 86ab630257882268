"""Muon, SOAP and L-BFGS, all tasks side by side, equal independent implementations on each task alone."""

from __future__ import annotations

import warnings

import pytest
import torch

from gradsmith.rules.orthogonal import COEFFICIENTS, ITERATIONS, orthogonalized
from gradsmith.rules.shapes import MOST_ROWS
from models.baselines import TUNED
from models.families.mlp import MLPSpec
from models.families.quadratic import QuadraticSpec
from models.rollout import Sample, curves, run
from models.spec import Split
from models.task_spec import Part
from models.tasks.catalogue import open_for_tuning
from models.tuning import Tuned

STEPS, RATE = 25, 0.02
PARTS = (Part("tall", (4, 3), "weight"), Part("bias", (3,), "bias"), Part("wide", (3, 4), "weight"))
# no side is longer by two than the other: its basis would have directions that are as good in any rotation
SIZE = sum(part.size for part in PARTS)


class Given:
    """Tasks whose gradients are given: normal numbers, so that no two singular values are alike."""

    parts, tasks, coordinates_per_task = PARTS, 3, SIZE

    def __init__(self):
        drawn = torch.randn(STEPS, self.tasks, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        self.gradients = drawn * torch.tensor([1.0, 30.0, 0.02], dtype=torch.float64)[:, None]
        self.start = torch.randn(self.tasks, SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def ours(name, given):
    theta, stepper = given.start.reshape(-1).clone(), Tuned(TUNED[name], RATE, "linear", STEPS).start(given)
    points = []
    for gradient in given.gradients:
        stepper.step(theta, gradient.reshape(-1))
        points.append(theta.view(given.tasks, -1).clone())
    return torch.stack(points)


def theirs(given, make):
    """make: optimizers of parameters, each a tensor of the task alone; their rates fall along a line"""
    points = torch.empty(STEPS, given.tasks, SIZE, dtype=torch.float64)
    for task in range(given.tasks):
        pieces = given.start[task].split([part.size for part in PARTS])
        parameters = [
            torch.nn.Parameter(piece.view(part.shape).clone()) for piece, part in zip(pieces, PARTS, strict=True)
        ]
        optimizers = make(parameters)
        for step in range(STEPS):
            pieces = given.gradients[step, task].split([part.size for part in PARTS])
            for parameter, piece in zip(parameters, pieces, strict=True):
                parameter.grad = piece.view(parameter.shape).clone()
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
                optimizer.step()
            points[step, task] = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    return points


def test_muon_is_torchs_up_to_its_bfloat16():
    """The matrices by torch.optim.Muon, whose iteration rounds to 3 digits; the rest by torch.optim.AdamW, exactly."""
    given = Given()

    def make(parameters):
        tall, bias, wide = parameters
        settings = {"momentum": 0.95, "weight_decay": 0.01, "adjust_lr_fn": "match_rms_adamw"}
        return torch.optim.Muon([tall, wide], lr=RATE, **settings), torch.optim.AdamW([bias], lr=RATE)

    found, expected = ours("muon", given), theirs(given, make)
    bias = slice(PARTS[0].size, PARTS[0].size + PARTS[1].size)
    torch.testing.assert_close(found[..., bias], expected[..., bias], rtol=1e-12, atol=1e-12)
    moved = (expected - given.start).norm()
    assert (found - expected).norm() < 0.02 * moved


@pytest.mark.parametrize("shape", [(2, 7, 4), (2, 4, 7), (1, 5, 5)])
def test_orthogonalizing_is_the_polynomial_of_the_singular_values(shape):
    """The orthogonalization by a singular value decomposition in float64: the quintic takes each value five times."""
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    values = values / matrices.flatten(1).norm(dim=1)[:, None]
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        values = a * values + b * values**3 + c * values**5
    torch.testing.assert_close(orthogonalized(matrices), left @ torch.diag_embed(values) @ right, rtol=1e-9, atol=1e-9)


def test_soap_is_that_of_pytorch_optimizer():
    """Their QR rounds to float32, whatever the tensors are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what importing some hundred optimizers says
        from pytorch_optimizer import SOAP
    given = Given()
    expected = theirs(given, lambda parameters: (SOAP(parameters, lr=RATE),))
    found = ours("soap", given)
    assert torch.equal(found[0], given.start), "the first gradient makes the bases"
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def test_a_side_that_is_too_long_has_no_basis():
    tasks = Given()
    tasks.parts = (Part("long", (MOST_ROWS + 1, 3), "weight"),)
    tasks.coordinates_per_task = tasks.parts[0].size
    stepper, theta = TUNED["soap"].start(tasks), torch.zeros(3 * tasks.coordinates_per_task)
    for seed in range(3):
        gradient = torch.randn(theta.shape, generator=torch.Generator().manual_seed(seed))
        stepper.step(theta, gradient, 0.1)
    products, bases = stepper._memory[2:4]
    assert products.shape == bases.shape == (3 * 3 * 3, 1), "three tasks, each with the shorter side's"
    assert theta.isfinite().all()
    assert theta.any()


@pytest.mark.parametrize(
    "spec", [QuadraticSpec(dimension=6), MLPSpec(hidden=(4,), batch_size=16)], ids=["full", "minibatch"]
)
def test_l_bfgs_is_torchs_with_one_gradient_a_step(spec):
    """More steps than pairs are kept; on minibatches some pairs have no curvature and are left out, per task."""
    family = open_for_tuning(spec)
    [tasks] = family.sample(Split.VALIDATION, seed=0, trajectory=0, tasks=3, dtype=torch.float64)
    theta, stepper = tasks.initial(), TUNED["lbfgs"].start(tasks)
    points = []
    for step in range(STEPS):
        stepper.step(theta, tasks.losses_and_gradient(theta, step)[1], 0.5)
        points.append(theta.view(3, -1).clone())
    for task in range(3):
        [alone] = family.sample(Split.VALIDATION, seed=0, trajectory=0, tasks=1, first=task, dtype=torch.float64)
        parameter = torch.nn.Parameter(alone.initial())
        still = {"tolerance_grad": 0.0, "tolerance_change": 0.0}
        oracle = torch.optim.LBFGS([parameter], lr=0.5, max_iter=1, history_size=10, **still)
        for step in range(STEPS):

            def closure(step=step, alone=alone, parameter=parameter):
                losses, parameter.grad = alone.losses_and_gradient(parameter.detach(), step)
                return losses.sum()

            oracle.step(closure)
            error = (points[step][task] - parameter.detach()).abs().max() / parameter.detach().abs().max()
            assert error <= 1e-6, f"task {task}, step {step}"


def test_matrix_baselines_run_on_networks_and_ask_for_the_parts_of_others():
    sample = Sample(Split.VALIDATION, 0, 1, 2)
    for name in ("muon", "soap"):
        found = curves(run(Tuned(TUNED[name], 0.03, "constant", 20), open_for_tuning(MLPSpec()), sample, 20))
        assert (found.final < found.losses[0]).all()
    unknown = Given()
    unknown.parts = ()
    with pytest.raises(ValueError, match="a task has 27 coordinates, and its family names parts with 0"):
        TUNED["muon"].start(unknown)
