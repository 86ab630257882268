"""Several processes train one rule: real ranks, started by torchrun, against one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from app.host.tether import tethered
from models import meta_train
from models.families import FAMILIES
from models.families.quadratic import QuadraticSpec
from models.families.recipes import PAPER
from models.memory import CHUNK_COORDINATES
from models.meta_train import MetaStep
from models.parallel import Alone
from models.spec import MetaTrainSpec, Resources, overridden, share
from tests.models.ranks import validation_losses, whole_run, window_mean

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def specs() -> tuple[MetaTrainSpec, MetaTrainSpec]:
    """Three tasks on two ranks; and tasks so wide that validation runs in three chunks."""
    family = FAMILIES["quadratic"]
    recipe = {"meta_steps": 14, "tasks": 3, "horizon": 20, "unroll_steps": 5, "validation_tasks": 4}
    spec = MetaTrainSpec(
        family=family,
        seed=7,
        recipe=overridden(PAPER[family.name], recipe | {"validation_interval": 7}),
        evaluate=False,
        evaluation=family.evaluation,
        resources=Resources(processes=2, backend="torch"),
    )
    wide = {
        "family": family.model_copy(update={"tasks": QuadraticSpec(dimension=100)}),
        "recipe": overridden(spec.recipe, {"horizon": 5, "validation_tasks": 400}),
    }
    assert 2 * (CHUNK_COORDINATES // 100) < 400
    return spec, spec.model_copy(update=wide)


@pytest.fixture(scope="module")
def ranks(specs: tuple[MetaTrainSpec, MetaTrainSpec], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two ranks have left what they found (tests/models/ranks.py)."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("ranks")
    for name, spec in zip(("spec", "wide"), specs, strict=True):
        (folder / f"{name}.json").write_text(spec.model_dump_json())
    (folder / "lone_checkpoint").write_bytes(whole_run(None, specs[0])[1])
    command = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", "2", "--log-dir", str(folder / "logs"), "-m", "tests.models.ranks", str(folder)]
    run = subprocess.run(
        tethered(command),
        check=False,
        env=_loopback(),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert run.returncode == 0, run.stderr
    return folder


def _loopback() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


@pytest.fixture(scope="module")
def found(ranks: Path) -> list[dict]:
    return [json.loads((ranks / f"found{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("tasks", [4, 3])
def test_two_ranks_give_the_meta_gradient_of_one(specs, found, tasks):
    loss, gradient = window_mean(Alone(), specs[0], tasks)
    assert gradient.dtype == torch.float64
    assert found[0][f"window/{tasks}"] == found[1][f"window/{tasks}"]  # the same bits on both
    theirs = torch.tensor(found[0][f"window/{tasks}"][1], dtype=torch.float64)
    assert float((theirs - gradient).abs().max()) <= 1e-12 * float(gradient.abs().max())
    assert found[0][f"window/{tasks}"][0] == pytest.approx(loss, rel=1e-12)


def test_a_whole_run_is_the_same_on_both_ranks_and_that_of_one_but_for_rounding(specs, found):
    alone, _, _ = whole_run(None, specs[0])
    assert found[0]["run"] == found[1]["run"]
    assert found[0]["weights"] == found[1]["weights"]
    ours, theirs = alone["steps"], found[0]["run"]["steps"]
    assert [step["loss"] for step in theirs] == pytest.approx([step["loss"] for step in ours], rel=1e-4)
    assert found[0]["run"]["gradients"] == alone["gradients"]  # of all tasks, not of a rank's own
    assert (found[0]["run"]["processes"], alone["processes"]) == (2, 1)


def test_the_ranks_share_a_validation_and_each_task_s_losses_have_the_bits_of_one_process(specs, found):
    alone = validation_losses(Alone(), specs[1])
    assert len(set(alone[0])) == 400
    assert found[0]["validation"] == found[1]["validation"] == alone


def test_a_window_that_is_not_finite_on_one_rank_is_skipped_by_all(found):
    for rank in found:
        assert [step["step"] for step in rank["poisoned"]["steps"] if step["skipped"]] == [3]
        assert rank["poisoned"]["skipped"] == 1
    assert found[0]["poisoned"]["scores"] == found[1]["poisoned"]["scores"]


def test_a_checkpoint_of_two_processes_goes_on_in_one_and_the_other_way_round(specs, ranks, found):
    resumed = meta_train.meta_train(specs[0], resume=(ranks / "checkpoint0").read_bytes())
    steps = [event for event in resumed if isinstance(event, MetaStep)]
    two = found[0]["run"]["steps"]
    assert [step.step for step in steps] == list(range(5, 15))
    assert [step.loss for step in steps] == pytest.approx([step["loss"] for step in two[4:]], rel=1e-4)
    back = found[0]["resumed"]["steps"]
    assert [step["step"] for step in back] == list(range(5, 15))
    assert [step["loss"] for step in back] == pytest.approx([step["loss"] for step in two[4:]], rel=1e-4)


def test_ranks_that_drifted_apart_find_out(found):
    assert [rank["same"] for rank in found] == ["", ""]
    assert all("do not hold the same weights" in rank["drift"] for rank in found)


def test_a_rank_that_hangs_is_given_up(found):
    assert "one did not come within" in found[0]["late"]
    assert found[0]["waited"] < 2.5, "before the other came back, after 3 s"
    assert found[1]["late"], "the other finds the connection closed"


@pytest.mark.parametrize(("count", "processes"), [(3, 2), (8, 3), (5, 5), (2, 4), (0, 3)])
def test_shares_are_whole_in_order_and_even(count, processes):
    shares = [share(count, processes, process) for process in range(processes)]
    assert [index for own in shares for index in own] == list(range(count))
    lengths = [len(own) for own in shares]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] <= 1
