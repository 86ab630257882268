"""The template of a plug-in, installed by pip beside one that is broken: listed, trained, measured, used; and what
happens where it is not installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

import gradsmith
from app.settings import Settings
from gradsmith.errors import JobFailed
from models.families import FAMILIES, KINDS
from tests.workers.harness import running_worker
from workers.run import run_job
from workshop.served import ROOT, service
from workshop.serving import serving

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

RECIPE = {"meta_steps": 20, "tasks": 8, "horizon": 10, "unroll_steps": 5, "validation_tasks": 8}
SMALL: dict[str, Any] = {
    "recipe": RECIPE | {"validation_interval": 10},
    "evaluation": {
        "test_tasks": 8, "tuning_tasks": 4, "bootstrap_samples": 100,
        "baselines": ["adam"], "schedules": ["constant"], "untuned": ["dog"],
    },
    "seed": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with the template and a broken plug-in."""
    source, target = tmp_path_factory.mktemp("template") / "plugin", tmp_path_factory.mktemp("packages")
    shutil.copytree(ROOT / "examples/plugin", source)
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, source], check=True)
    (target / "broken_families.py").write_text("BOUND = 1 / 0\n")
    record = target / "broken_families-1.5.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-families\nVersion: 1.5\n")
    (record / "entry_points.txt").write_text("[gradsmith.families]\nbroken = broken_families:KIND\n")
    return target


def path_with(*folders: Path) -> str:
    return ":".join(str(folder) for folder in (*folders, ROOT, ROOT / "sdk"))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::gradsmith.OutsideTrainingWarning")  # its rule learned for a second, and loses
def test_the_template_from_its_installation_to_a_users_loop_and_where_it_is_missing(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        service(None, changes={"PYTHONPATH": path_with(installed)}) as served,
        gradsmith.Client(served.url) as client,
    ):
        listed = httpx.get(f"{served.url}/families").json()
        assert {family["name"]: family["plugin"] for family in listed["data"]} == {
            **dict.fromkeys(FAMILIES),
            "curves": "gradsmith-curves 0.1.0",
        }
        assert listed["problems"] == [
            {"plugin": "broken-families 1.5", "reason": "ZeroDivisionError: division by zero"}
        ]
        assert client.families.get("curves").coordinates_per_task == 8

        monkeypatch.setenv("PYTHONPATH", path_with(installed))
        with running_worker(served.settings.model_copy(update={"warm_spare": False}), tmp_path):
            trained = client.jobs.wait(client.jobs.create(family="curves", tasks={"degree": 3}, **SMALL))
            assert trained.raw["spec"]["family"]["plugin"] == "gradsmith-curves 0.1.0"
            measured = client.jobs.wait(str(trained.evaluation))
            assert client.jobs.report(measured).raw["family"] == "curves"
        use(client, str(trained.optimizer))

        waiting = client.jobs.create(family="curves", evaluate=False, **SMALL)
        run_job(waiting.id, 1, settings=served.settings)  # as a worker without the plug-in: this process has none
        with pytest.raises(JobFailed) as failed:
            client.jobs.wait(waiting)
        assert "There is no kind of family 'curve' here (" + ", ".join(KINDS) + "); install gradsmith-curves 0.1.0" in (
            str(failed.value)
        )
        without_the_plug_in(served.settings, str(trained.optimizer), trained.id, waiting.id)


def use(client: gradsmith.Client, reference: str) -> None:
    """The loop of a user whose problem is not even a curve."""
    theta = torch.nn.Parameter(torch.full((4,), 2.0))
    optimizer = gradsmith.LearnedOptimizer([theta], client.optimizers.pull(reference))
    optimizer.zero_grad()
    theta.square().sum().backward()
    optimizer.step()
    assert not torch.equal(theta.detach(), torch.full((4,), 2.0))


def without_the_plug_in(settings: Settings, optimizer: str, *jobs: str) -> None:
    """This process has never heard of curves: what was stored is shown all the same, and nothing new is taken."""
    with serving(settings) as url, httpx.Client(base_url=url) as api:
        assert "curves" not in [family["name"] for family in api.get("/families").json()["data"]]
        for path in (
            "/jobs", "/jobs?family=curves", *(f"/jobs/{job}" for job in jobs), f"/jobs/{jobs[0]}/curve", "/optimizers",
            "/optimizers?family=curves", f"/optimizers/{optimizer}", "/optimizers/curves@latest/record",
            f"/optimizers/{optimizer}/card",
        ):  # fmt: skip
            assert api.get(path).status_code == 200, path
        for body, code in (
            ({"kind": "meta_train", "family": "curves"}, "unknown_family"),
            ({"kind": "evaluate", "optimizer": optimizer}, "not_installed"),
        ):
            refused = api.post("/jobs", json=body)
            assert (refused.status_code, refused.json()["code"]) == (422, code)
        assert api.get("/families/curves/aliases").status_code == 404
