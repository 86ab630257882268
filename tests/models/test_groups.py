"""Groups of tasks give what all tasks side by side give."""

from __future__ import annotations

import pytest
import torch

from gradsmith.rules import LSTMRule
from models import groups
from models.backends import backend_for
from models.captured import windows
from models.families.quadratic import QuadraticSpec
from models.families.quadratic.tasks import QuadraticFamily
from models.groups import Groups, ranges
from models.memory import GROUP_COORDINATES, KEPT_BYTES, group_tasks
from models.spec import Split

CPU = torch.device("cpu")
TASKS, STEPS = 11, 4
RECORD = 200  # of the 2x20 LSTM


def rule_in(dtype: torch.dtype) -> LSTMRule:
    rule = LSTMRule()
    rule.initialise(torch.Generator().manual_seed(3))
    return rule.to(dtype)


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_groups_give_the_losses_and_the_gradient_of_all_tasks_together(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, allowed: float
) -> None:
    rule = rule_in(dtype)
    backend = backend_for(rule, dtype, CPU)
    family = QuadraticFamily(QuadraticSpec(), {Split.TRAIN})

    def unrolled(most: int) -> tuple[list[int], list[torch.Tensor], list[torch.Tensor]]:
        monkeypatch.setattr(groups, "group_tasks", lambda *_: most)
        parts = ranges(range(5, 5 + TASKS), family.coordinates_per_task, RECORD, STEPS, CPU)
        batches = [
            batch
            for part in parts
            for batch in family.sample(
                Split.TRAIN, seed=1, trajectory=2, tasks=len(part), first=part.start, dtype=dtype
            )
        ]
        all_of_them = Groups(batches, backend)
        found = [all_of_them.unroll(windows(backend, CPU), STEPS) for _ in range(3)]  # they go on where they were
        return [len(part) for part in parts], [one.losses for one in found], [one.gradient for one in found]

    sizes, losses, gradients = unrolled(4)
    assert sizes == [4, 4, 3]
    whole, expected_losses, expected_gradients = unrolled(TASKS)
    assert whole == [TASKS]
    for found, expected in zip(losses + gradients, expected_losses + expected_gradients, strict=True):
        assert found.shape == expected.shape
        assert float((found - expected).abs().max()) <= allowed * float(expected.abs().max())
    assert losses[0].shape == (STEPS, TASKS)


def test_a_task_is_never_cut_and_a_gpu_takes_all_at_once() -> None:
    assert [len(part) for part in ranges(range(3), 1_000_000, RECORD, 20, CPU)] == [1, 1, 1]
    assert ranges(range(4096), 10, RECORD, 20, torch.device("cuda")) == [range(4096)]
    parts = ranges(range(7, 5000), 10, RECORD, 20, CPU)
    assert [task for part in parts for task in part] == list(range(7, 5000))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(("record", "steps"), [(200, 20), (200, 100), (10, 1), (2560, 1000), (0, 20)])
def test_a_group_is_what_the_tape_holds_whole_within_bounds(record: int, steps: int) -> None:
    least, most = GROUP_COORDINATES
    tasks = group_tasks(10, record, steps)
    assert least // 10 <= tasks <= most // 10
    whole = KEPT_BYTES // (4 * record * steps) if record else most
    if least < whole < most:
        assert tasks == whole // 10
