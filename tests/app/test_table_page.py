"""docs/your-own-problem.md, the table: its commands are run as they stand, up to the training itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx

from app.settings import Settings
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
