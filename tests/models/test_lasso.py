"""Lasso and elastic net, and FISTA, against a textbook's iteration and scikit-learn's solutions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.baselines import UNTUNED, usual_untuned
from models.families import FAMILIES
from models.families.lasso import LassoSpec
from models.families.lasso.tasks import LassoBatch
from models.families.regression import RegressionSpec
from models.rollout import Averaging, Sample, curves, run
from models.spec import EvaluationPlan, Split
from models.spec.jobs import unfitting
from models.tasks.catalogue import open_for_training, open_for_tuning
from models.tasks.conformance import CHECKS, Subject
from tests.models.tables import brought

NET = LassoSpec(dimension=9, measurements=6, nonzero=0.3, l1=0.05, l2=0.2, start_std=0.5)


def drawn(spec: LassoSpec, tasks: int = 3) -> LassoBatch:
    [batch] = open_for_training(spec).sample(Split.TRAIN, seed=1, trajectory=0, tasks=tasks, dtype=torch.float64)
    assert isinstance(batch, LassoBatch)
    return batch


@pytest.mark.parametrize("promise", sorted(CHECKS.keys() - {"memory"}))
def test_a_lasso_keeps_what_families_promise(promise: str) -> None:
    CHECKS[promise](Subject(NET))


def textbook(
    A: NDArray[np.float64], b: NDArray[np.float64], l1: float, l2: float, start: NDArray[np.float64], steps: int
) -> list[NDArray[np.float64]]:
    """FISTA with constant step, line by line as Beck and Teboulle 2009 have it, for |A x - b|^2 / 2 + l2 |x|^2 / 2."""
    L = np.linalg.eigvalsh(A.T @ A)[-1] + l2
    x, y, t, points = start, start, 1.0, []
    for _ in range(steps):
        z = y - (A.T @ (A @ y - b) + l2 * y) / L
        x_next = np.sign(z) * np.maximum(np.abs(z) - l1 / L, 0)
        t_next = (1 + math.sqrt(1 + 4 * t * t)) / 2
        y = x_next + (t - 1) / t_next * (x_next - x)
        x, t = x_next, t_next
        points.append(x)
    return points


def test_fista_is_the_textbooks_on_every_task() -> None:
    tasks = drawn(NET)
    theta, stepper = tasks.initial(), UNTUNED["fista"].start(tasks)
    assert isinstance(stepper, Averaging)
    start = tasks.initial().view(3, -1).numpy()
    truth = [textbook(tasks.D[i].numpy(), tasks.y[i, :, 0].numpy(), 0.05, 0.2, start[i], 30) for i in range(3)]
    for step in range(30):
        stepper.step(theta, tasks.losses_and_gradient(theta, step)[1])
        found = stepper.average(theta).view(3, -1).numpy()
        np.testing.assert_allclose(found, [points[step] for points in truth], rtol=1e-9, atol=1e-12)


def test_fista_ends_at_scikit_learns_solution() -> None:
    from sklearn.linear_model import ElasticNet

    tasks = drawn(NET)
    theta, stepper = tasks.initial(), UNTUNED["fista"].start(tasks)
    assert isinstance(stepper, Averaging)
    for step in range(800):
        stepper.step(theta, tasks.losses_and_gradient(theta, step)[1])
    found = stepper.average(theta).view(3, -1)
    rows = tasks.D.shape[1]
    for task in range(3):  # whose objective is ours over the number of rows
        alpha = (0.05 + 0.2) / rows
        model = ElasticNet(alpha=alpha, l1_ratio=0.05 / 0.25, fit_intercept=False, tol=1e-14, max_iter=100_000)
        truth = model.fit(tasks.D[task].numpy(), tasks.y[task, :, 0].numpy()).coef_
        np.testing.assert_allclose(found[task].numpy(), truth, atol=1e-7)
        assert ((found[task].numpy() == 0) == (truth == 0)).all()


def test_fista_runs_where_the_loss_has_absolute_values_and_is_refused_elsewhere() -> None:
    family = FAMILIES["lasso"]
    assert family.evaluation.untuned == usual_untuned(family.tasks)
    assert "fista" in family.evaluation.untuned
    sample = Sample(Split.VALIDATION, 0, 0, 8)
    fista, adam = (
        curves(run(UNTUNED[name], open_for_tuning(family.tasks), sample, 100)).final.mean()
        for name in ("fista", "adam_default")
    )
    assert float(fista) < 0.5 * float(adam)
    other = FAMILIES["quadratic"]
    assert "fista" not in other.evaluation.untuned
    found = unfitting(EvaluationPlan(untuned=("fista",)), other.tasks, "quadratic")
    assert found is not None
    assert found[0] == "untuned"


@pytest.mark.parametrize("loss", ["huber", "softmax"])
def test_a_regression_with_l1_tells_its_smooth_part(tmp_path: Path, loss: str) -> None:
    """FISTA's steps never raise the loss by more than rounding where its bound on the curvature holds, and end where
    the subgradient says that there is a minimum."""
    target = "k" if loss == "softmax" else "y"
    spec = RegressionSpec.model_validate({"dataset": brought(tmp_path)[f"{target} by group"], "loss": loss, "l1": 0.05})
    assert spec.composite
    [tasks] = open_for_training(spec, tmp_path).sample(Split.TRAIN, seed=1, trajectory=0, tasks=4, dtype=torch.float64)
    loss_of = tasks.composite()
    assert loss_of is not None
    v = torch.linspace(-1, 1, tasks.coordinates, dtype=torch.float64)
    for theta in (tasks.initial(), 3 * v):
        curved = (v * tasks.hessian_vector(theta, 0, v)).view(4, -1).sum(1)
        assert bool((curved <= loss_of.smoothness * v.view(4, -1).square().sum(1) * (1 + 1e-9)).all())
    theta, stepper = tasks.initial(), UNTUNED["fista"].start(tasks)
    assert isinstance(stepper, Averaging)
    for step in range(500):
        stepper.step(theta, tasks.losses_and_gradient(theta, step)[1])
    point = stepper.average(theta)
    smooth = tasks.losses_and_gradient(point, 0)[1] - loss_of.l1 * point.sign()
    off = torch.where(point == 0, smooth.abs() - loss_of.l1, (smooth + loss_of.l1 * point.sign()).abs())
    assert float(off.max()) < 1e-3
