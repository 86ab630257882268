"""The family that this package adds: its gradient against autograd, its curves, and what a training makes of it."""

import math

import pytest
import torch

from gradsmith_curves import KIND, CurveSpec
from gradsmith_curves.tasks import CurveFamily
from models.spec import Split


def batch(spec, tasks=3):
    family = CurveFamily(spec, {Split.TRAIN})
    [drawn] = family.sample(Split.TRAIN, seed=1, trajectory=0, tasks=tasks, dtype=torch.float64)
    return drawn


def test_the_gradient_is_autograds():
    tasks = batch(CurveSpec(degree=4, points=20))
    theta = torch.linspace(-2, 2, tasks.coordinates, dtype=torch.float64, requires_grad=True)
    losses, gradient = tasks.losses_and_gradient(theta.detach(), 5)
    plain = tasks.losses(theta, 5)
    torch.testing.assert_close(losses, plain.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(plain.sum(), theta)[0])


def test_without_noise_the_true_coefficients_cost_nothing():
    spec = CurveSpec(degree=3, points=16, noise=1e-12, outliers=0.0)
    tasks = batch(spec, tasks=1)
    angles = (torch.arange(16, dtype=torch.float64) + 0.5) * math.pi / 16
    # Chebyshev nodes: the polynomials are orthogonal there, so that coefficients are sums over the points.
    found = torch.stack([(angles * k).cos() @ tasks._heights[0] * (2 if k else 1) / 16 for k in range(4)])
    assert float(tasks.losses(found, 0)) < 1e-20


def test_a_tenth_of_the_points_is_far_off():
    far = (batch(CurveSpec(degree=1, noise=1.0, points=4096), tasks=8)._heights.abs() > 8).double().mean()
    assert float(far) == pytest.approx(0.1 * math.erfc(8 / 30 / math.sqrt(2)), abs=0.005)


def test_the_family_has_a_name_and_a_recipe():
    [family] = KIND.built_in
    assert (family.name, family.tasks.coordinates_per_task) == ("curves", 8)
