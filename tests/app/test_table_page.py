"""docs/your-own-problem.md, the table: its commands run as they stand, up to the training itself; and then its loop."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import torch

from app.settings import Settings
from gradsmith.rules import build
from gradsmith.rules.weights import dumps
from workshop.serving import serving

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "your-own-problem.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.S)


def test_the_blocks_bring_the_table_declare_its_family_and_queue_its_training(
    settings: Settings, tmp_path: Path
) -> None:
    script = "".join(BLOCKS)
    assert script.count("gradsmith train churn --follow") == 1
    script = script[: script.index("gradsmith train churn --follow")] + "gradsmith train churn\n"  # no worker is here
    prepared = f'set -e\ngradsmith() {{ "{sys.executable}" -m gradsmith.cli "$@"; }}\n'
    with serving(settings) as url, httpx.Client(base_url=url) as api:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", prepared + script], cwd=tmp_path, env={**os.environ, "GRADSMITH_URL": url, "PATH": path},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"customers: 3,\d{3} rows, 3 inputs, target churned \(2 values\), 100 groups", done.stdout)
        assert "churn: 4 coordinates" in done.stdout
        [job] = api.get("/jobs").json()["data"]
        assert (job["family"], job["spec"]["family"]["tasks"]["dataset"]["groups"]) == ("churn", 100)


def test_the_block_in_python_fits_a_customer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a tuned baseline, which `best` may be."""
    subprocess.run(["bash", "-c", BLOCKS[0]], cwd=tmp_path, stdin=subprocess.DEVNULL, check=True)
    (tmp_path / "churn.safetensors").write_bytes(
        dumps(build({"kind": "tuned", "optimizer": "adam", "learning_rate": 0.1, "schedule": "linear"}))
    )
    [block] = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert block.count('"churn@best"') == block.count('"customers.csv"') == 1
    for name, path in (("churn@best", "churn.safetensors"), ("customers.csv", "customers.csv")):
        block = block.replace(f'"{name}"', repr(str(tmp_path / path)))
    torch.manual_seed(0)
    exec(compile(block, "the page", "exec"), {})
    assert float(capsys.readouterr().out.split()[-1]) < 0.6, "a model that does not move has log 2 or more"
