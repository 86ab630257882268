"""Test functions of the literature: published values, and a rotation and a stretch that are what they say."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from models.families import FAMILIES
from models.families.functions import FunctionSpec
from models.families.functions.tasks import FUNCTIONS, FunctionBatch
from models.spec import Split
from models.tasks.catalogue import open_for_training
from models.tasks.conformance import CHECKS, Subject

SPECS = [
    FunctionSpec(function="beale", stretch=3.0, start_std=0.5),
    FunctionSpec(function="himmelblau", rotation=True),
    FunctionSpec(function="griewank", dimension=4, rotation=True, stretch=2.0),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.function)
@pytest.mark.parametrize("promise", ["gradient", "hessian", "graphs", "dtype", "company"])
def test_they_keep_what_families_promise(spec: FunctionSpec, promise: str) -> None:
    CHECKS[promise](Subject(spec))


GRIEWANK = 1 + 14 / 4000 - math.cos(1) * math.cos(2 / math.sqrt(2)) * math.cos(3 / math.sqrt(3))


@pytest.mark.parametrize(
    ("function", "minimum", "place", "value"),
    [  # the published formulas, at a place of their own coordinates, where the published minimum is at `minimum`
        ("beale", (3.0, 0.5), (1.0, 1.0), 14.203125),
        ("beale", (3.0, 0.5), (0.0, 0.0), 1.5**2 + 2.25**2 + 2.625**2),
        ("himmelblau", (3.0, 2.0), (-2.805118, 3.131312), 0.0),
        ("himmelblau", (3.0, 2.0), (-3.779310, -3.283186), 0.0),
        ("himmelblau", (3.0, 2.0), (3.584428, -1.848126), 0.0),
        ("himmelblau", (3.0, 2.0), (0.0, 0.0), 170.0),
        ("griewank", (0.0, 0.0, 0.0), (1.0, 2.0, 3.0), GRIEWANK),
        ("griewank", (0.0, 0.0), (0.0, 0.0), 0.0),
    ],
)
def test_published_values(function: str, minimum: tuple[float, ...], place: tuple[float, ...], value: float) -> None:
    x = torch.tensor([place], dtype=torch.float64) - torch.tensor([minimum], dtype=torch.float64)
    losses, _ = FUNCTIONS[function](x)
    assert float(losses) == pytest.approx(value, abs=1e-9)


def test_a_rotation_keeps_lengths_is_the_tasks_own_and_every_direction_is_as_likely() -> None:
    spec = FunctionSpec(function="rastrigin", dimension=3, rotation=True)
    [tasks] = open_for_training(spec).sample(Split.TRAIN, seed=0, trajectory=0, tasks=2000, dtype=torch.float64)
    assert isinstance(tasks, FunctionBatch)
    turn = tasks.buffers()["turn"]
    eye = torch.eye(3, dtype=torch.float64).expand(2000, 3, 3)
    torch.testing.assert_close(turn @ turn.transpose(1, 2), eye)
    assert float(turn.mean(dim=0).abs().max()) < 5 * 3**-0.5 * 2000**-0.5
    assert float((turn.square().mean(dim=0) - 1 / 3).abs().max()) < 0.05


def test_a_stretch_is_log_uniform_around_one() -> None:
    spec = FunctionSpec(dimension=4, stretch=10.0)
    [tasks] = open_for_training(spec).sample(Split.TRAIN, seed=0, trajectory=0, tasks=2000, dtype=torch.float64)
    turn = tasks.buffers()["turn"].log() / math.log(10)
    assert float(turn.abs().max()) <= 1
    assert abs(float(turn.mean())) < 0.03
    assert float(turn.square().mean()) == pytest.approx(1 / 3, abs=0.02)


def test_what_does_not_fit_is_refused_and_those_with_a_name_are_listed() -> None:
    with pytest.raises(ValidationError, match="beale is a function of two dimensions, and dimension is 3; send 2"):
        FunctionSpec(function="beale", dimension=3)
    with pytest.raises(ValidationError, match="at most 100 dimensions"):
        FunctionSpec(dimension=101, rotation=True)
    assert {"rosenbrock", "rastrigin", "ackley", "beale", "himmelblau"} <= FAMILIES.keys()
