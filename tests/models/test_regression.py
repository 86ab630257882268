"""Regressions and networks on a user's table: one task a group, against float64 autograd and closed forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.errors import DatasetCorrupt, DatasetMissing, SplitHeldOut
from models.families import lacking_data
from models.families.mlp import MLPSpec
from models.families.regression import RegressionSpec
from models.spec import Split
from models.table_spec import Table
from models.task_spec import TaskSpec
from models.tasks.catalogue import open_for_testing, open_for_training
from models.tasks.row_batch import RowBatch
from tests.models import tables
from tests.models.tables import GROUPS, ROWS


def key(value: float | Tensor) -> float:
    """A value of the table as a batch has it: float32."""
    return float(np.float32(float(value)))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def brought(data_dir: Path) -> dict[str, Table]:
    return tables.brought(data_dir)


SPECS: list[tuple[str, dict[str, Any]]] = [
    ("y by group", {"loss": "squared", "l2": 0.3}),
    ("y by group", {"loss": "huber", "huber_delta": 0.7}),
    ("k by group", {"loss": "softmax", "l1": 0.2, "l2": 0.1}),
    ("n by group", {"loss": "poisson", "l2": 0.1, "batch_size": 5}),
    ("two by group", {"loss": "logistic", "l2": 0.1}),
    ("two by None", {"loss": "logistic", "most_rows": 50}),
    ("k by group", {"loss": "softmax", "most_rows": 6}),
    ("k by group", {"kind": "mlp", "hidden": (4, 3), "batch_size": 8, "start_std": 0.5}),
    ("k by None", {"kind": "mlp", "hidden": (5,), "batch_size": 8, "activation": "relu", "start_std": 0.5}),
]


def spec_of(brought: dict[str, Table], name: str, settings: dict[str, Any]) -> TaskSpec:
    kind = MLPSpec if settings.get("kind") == "mlp" else RegressionSpec
    return kind.model_validate({"dataset": brought[name]} | settings)


def drawn(spec: TaskSpec, data_dir: Path, tasks: int = 5, split: Split = Split.TRAIN) -> RowBatch:
    family = (open_for_testing if split is Split.TEST else open_for_training)(spec, data_dir)
    [batch] = family.sample(split, seed=1, trajectory=0, tasks=tasks, dtype=torch.float64)
    assert isinstance(batch, RowBatch)
    return batch


@pytest.mark.parametrize(("name", "settings"), SPECS)
def test_gradients_and_products_are_autograds(
    brought: dict[str, Table], data_dir: Path, name: str, settings: dict[str, Any]
) -> None:
    whole = drawn(spec_of(brought, name, settings), data_dir)
    parted = whole.parted()
    assert parted.outer is not None
    for batch in (whole, parted, parted.outer):
        theta = batch.initial()
        v = torch.linspace(-1, 1, theta.numel(), dtype=torch.float64)
        for step in (0, torch.tensor(7)):
            losses, gradient = batch.losses_and_gradient(theta, step)
            free = theta.clone().requires_grad_()
            plain = batch.losses(free, step)
            torch.testing.assert_close(losses, plain.detach())
            (slope,) = torch.autograd.grad(plain.sum(), free, create_graph=True)
            torch.testing.assert_close(gradient, slope.detach())
            (product,) = torch.autograd.grad(slope @ v, free)
            torch.testing.assert_close(batch.hessian_vector(theta, step, v), product)


def test_each_task_is_the_ridge_regression_of_its_own_group(brought: dict[str, Table], data_dir: Path) -> None:
    """The minimum of a task's loss is that of its rows, found in the file again: nothing of another group is in it."""
    spec = RegressionSpec(dataset=brought["y by group"], standardize=False, l2=0.5)
    batch = drawn(spec, data_dir, tasks=8)
    X, y, w = batch._rows(0)
    known = {key(a): group for group, a, *_ in ROWS}
    sizes: dict[str, int] = {}
    for group, *_ in ROWS:
        sizes[group] = sizes.get(group, 0) + 1
    for task in range(8):
        there = w[task] > 0
        [group] = {known[key(a)] for a in X[task, there, 0]}
        assert int(there.sum()) == sizes[group] - max(1, round(sizes[group] / 4))
        design = torch.cat([X[task, there], torch.ones(int(there.sum()), 1, dtype=torch.float64)], dim=1)
        penalty = 0.5 * int(there.sum()) * torch.diag(torch.tensor([1.0, 1, 1, 0], dtype=torch.float64))
        best = torch.linalg.solve(design.T @ design + penalty, design.T @ y[task, there])
        theta = batch.initial().view(8, -1)
        theta[task] = best
        assert float(batch.losses_and_gradient(theta.reshape(-1), 0)[1].view(8, -1)[task].abs().max()) < 1e-8


def test_groups_of_one_split_are_in_no_other_and_held_out_rows_in_no_step(
    brought: dict[str, Table], data_dir: Path
) -> None:
    spec = RegressionSpec(dataset=brought["y by group"], standardize=False)
    group_of = {key(a): group for group, a, *_ in ROWS}
    seen: dict[Split, set[str]] = {}
    for split in Split:
        batch = drawn(spec, data_dir, tasks=200, split=split)
        X, _, w = batch._rows(0)
        trained = {key(a) for a in X[w > 0][:, 0]}
        held = batch._at(batch._held.held_first[:, None] + torch.arange(20) % batch._held.held_count[:, None])[0]
        held_out = {key(a) for a in held[..., 0].reshape(-1)}
        assert not trained & held_out
        seen[split] = {group_of[a] for a in trained}
        assert {group_of[a] for a in held_out} == seen[split]
    assert sum(map(len, seen.values())) == len(set.union(*seen.values())) == GROUPS - 1  # without the small one
    assert [len(seen[split]) for split in (Split.TRAIN, Split.VALIDATION, Split.TEST)] == [17, 6, 6]
    with pytest.raises(SplitHeldOut):
        open_for_training(spec, data_dir).sample(Split.TEST, seed=1, trajectory=0, tasks=1)
    other = RegressionSpec(dataset=brought["y by group"], standardize=False, split_seed=1)
    again = drawn(other, data_dir, tasks=200)
    X, _, w = again._rows(0)
    assert {group_of[key(a)] for a in X[w > 0][:, 0]} != seen[Split.TRAIN]


def test_inputs_are_standardized_by_training_rows_of_training_groups(brought: dict[str, Table], data_dir: Path) -> None:
    batch = drawn(RegressionSpec(dataset=brought["y by group"]), data_dir, tasks=400)
    data, there = batch._data, batch._data.splits[Split.TRAIN]
    spans = zip(there.first.tolist(), there.count.tolist(), strict=True)
    trained = torch.cat([torch.arange(first, first + count) for first, count in spans])
    for numbers in (data.inputs[trained].double(), data.targets[trained][:, None]):
        torch.testing.assert_close(
            numbers.mean(0), torch.zeros(numbers.shape[1], dtype=torch.float64), atol=1e-6, rtol=0
        )
        torch.testing.assert_close(
            numbers.std(0, correction=0), torch.ones(numbers.shape[1], dtype=torch.float64), atol=1e-6, rtol=0
        )
    assert abs(float(data.inputs.double().mean(0)[0])) > 1e-3  # of all rows it is another


def test_held_out_losses_and_accuracies_are_those_of_the_rows(brought: dict[str, Table], data_dir: Path) -> None:
    batch = drawn(RegressionSpec(dataset=brought["two by group"], loss="logistic"), data_dir, tasks=6)
    theta = torch.linspace(-1, 1, batch.coordinates, dtype=torch.float64)
    found = batch.held_out(theta)
    for task, weights in enumerate(theta.view(6, 4)):
        first, count = int(batch._held.held_first[task]), int(batch._held.held_count[task])
        X, y = batch._at(torch.arange(first, first + count)[None])
        said = X[0] @ weights[:3] + weights[3]
        expected = torch.nn.functional.binary_cross_entropy_with_logits(said, y[0].double())
        torch.testing.assert_close(found.losses[task], expected)
        assert float(found.accuracies[task]) == pytest.approx(float(((said > 0) == (y[0] > 0)).double().mean()))


def test_a_table_that_is_not_there_or_another_is_named_with_the_command(
    brought: dict[str, Table], tmp_path: Path
) -> None:
    spec = RegressionSpec(dataset=brought["y by group"])
    lacking = lacking_data(spec, tmp_path)
    assert lacking is not None
    assert "gradsmith data add FILE --name rows" in lacking
    with pytest.raises(DatasetMissing, match="data add FILE"):
        open_for_training(spec, tmp_path)
    place = tmp_path / "datasets" / "blobs" / spec.dataset.sha256
    place.parent.mkdir(parents=True)
    place.write_bytes(b"a,b\n1,2\n")
    with pytest.raises(DatasetCorrupt, match="Bring it again"):
        open_for_training(spec, tmp_path)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("k by group", {"loss": "logistic"}, "two classes, and k has 3"),
        ("k by group", {"loss": "huber"}, "a target of numbers"),
        ("y by group", {"loss": "softmax"}, "more than 100 values"),
        ("y by group", {"loss": "poisson"}, "a target of counts"),
        ("y by group", {"kind": "mlp"}, "a target of 2 to 100 classes"),
    ],
)
def test_a_target_that_does_not_fit_is_refused(
    brought: dict[str, Table], name: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        spec_of(brought, name, settings)


def test_a_task_of_many_rows_draws_some_and_one_of_few_has_them_all(brought: dict[str, Table], data_dir: Path) -> None:
    batch = drawn(RegressionSpec(dataset=brought["y by group"], most_rows=6), data_dir, tasks=40)
    _, _, w = batch._rows(0)
    assert w.shape[1] == 6
    counts = (w > 0).sum(1)
    np.testing.assert_array_equal(counts, batch._places.size.clamp(max=6))
    torch.testing.assert_close(w.sum(1), torch.ones(40, dtype=torch.float64))
