"""The four floors: who may import whom, and that nobody who should not pays for torch."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imported_by(module: str) -> set[str]:
    """Top-level names in sys.modules of a fresh Python after `import module`."""
    program = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


def test_the_contracts_of_the_layers_hold():
    contracts = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert contracts.returncode == 0, contracts.stdout + contracts.stderr
    assert " 0 broken" in contracts.stdout


@pytest.mark.parametrize(
    "module",
    [
        "app.main",
        "app.cli",
        "app.server",
        "app.supervise",
        "models.spec",
        "models.memory",
        "models.machine",
        "gradsmith",
    ],
)
def test_this_import_brings_no_torch(module):
    assert "torch" not in imported_by(module)


def test_importing_gradsmith_brings_neither_httpx_nor_numpy():
    assert not {"httpx", "numpy", "safetensors"} & imported_by("gradsmith")


def test_the_science_brings_no_web_no_redis_and_no_sql():
    names = imported_by("models.meta_train")
    assert "torch" in names
    assert not {"fastapi", "starlette", "redis", "rq", "sqlalchemy", "httpx"} & names
