"""Settings of a baseline that run side by side find what each finds alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from models.baselines import TUNED
from models.families.mlp import MLPSpec
from models.rollout import Sample, curves, run
from models.spec import Split
from models.tasks.catalogue import open_for_tuning
from models.tuned import SideBySide, Tuned, run_side_by_side
from tests.models.mixed_family import MixedSpec
from tests.models.mixed_tasks import MixedFamily
from tests.models.test_matrix_baselines import Given

STEPS, TASKS = 12, 3
SAMPLE = Sample(Split.VALIDATION, 0, 1, TASKS)


def settings(name):
    pairs = ((0.03, "constant"), (0.1, "linear"), (1e-4, "cosine"), (30.0, "constant"))
    return [Tuned(TUNED[name], rate, schedule, STEPS) for rate, schedule in pairs]


def together(some, family, **given):
    steps = run_side_by_side(some, family, SAMPLE, STEPS, dtype=torch.float64, **given)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize(
    ("name", "room"), [*((name, 100) for name in TUNED if name != "soap"), ("adam", 3), ("muon", 3), ("muon", 1)]
)
def test_settings_side_by_side_are_those_one_by_one(name, room, monkeypatch):
    """In float64, to 1e-9: sums over matrices of several tasks may be added up in another order. One setting diverges,
    and disturbs no other."""
    family = open_for_tuning(MLPSpec(hidden=(6, 5), batch_size=16))
    monkeypatch.setattr(family, "tasks_abreast", room)
    some = settings(name)
    found = together(some, family, looks=(0, 6, STEPS))
    for each, setting in zip(found, some, strict=True):
        alone = curves(run(setting, family, SAMPLE, STEPS, dtype=torch.float64, looks=(0, 6, STEPS)))
        torch.testing.assert_close(each.losses, alone.losses, rtol=1e-9, atol=1e-12, equal_nan=True)
        assert each.steps == alone.steps


def test_soaps_settings_side_by_side_are_those_one_by_one():
    """On given gradients of full rank. The first gradient of a network's layer has a null space, whose basis is
    arbitrary: any rounding makes it another one, and the run too."""
    some, given = settings("soap"), Given()
    twice = SimpleNamespace(parts=given.parts, coordinates_per_task=given.coordinates_per_task, tasks=3 * len(some))
    twice.device = torch.device("cpu")
    theta, stepper = given.start.reshape(-1).repeat(len(some)), SideBySide(tuple(some)).start(twice)
    alone = [(given.start.reshape(-1).clone(), setting.start(given)) for setting in some]
    for gradient in given.gradients[:STEPS]:
        stepper.step(theta, gradient.reshape(-1).repeat(len(some)))
        for own, each in alone:
            each.step(own, gradient.reshape(-1).clone())
    expected = torch.cat([own for own, _ in alone])
    torch.testing.assert_close(theta, expected, rtol=1e-9, atol=1e-9)


def test_tasks_of_several_sizes_stay_in_their_order():
    family = MixedFamily(MixedSpec(), {Split.VALIDATION})
    for each, setting in zip(together(settings("adam"), family), settings("adam"), strict=True):
        alone = curves(run(setting, family, SAMPLE, STEPS, dtype=torch.float64))
        torch.testing.assert_close(each.losses, alone.losses, rtol=1e-12, atol=0)
