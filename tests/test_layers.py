"""The four floors: who may import whom, and that nobody who should not pays for torch."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = "print(*{name.partition('.')[0] for name in sys.modules})"


def started(program: str) -> str:
    """What a fresh Python prints that runs `program`."""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(*statements: str) -> list[set[str]]:
    """Top-level names in sys.modules of a fresh Python after each of these statements, one after the other."""
    said = started("import sys\n" + "".join(f"{statement}\n{NAMES}\n" for statement in statements))
    return [set(line.split()) for line in said.splitlines()]


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


def test_these_imports_bring_no_torch_and_gradsmith_neither_httpx_nor_numpy_and_the_api_no_matplotlib():
    """In one process, gradsmith first: what all of them together do not bring, none of them does."""
    modules = [
        "gradsmith",
        "models.machine",
        "models.spec",
        "models.memory",
        "models.families",
        "app.cli",
        "app.host.supervise",
        "app.host.server",
        "app.jobs.dispatch",
        "app.doctor.machine",
        "app.doctor.service",
        "app.doctor.stores",
        "app.main",
    ]
    statements = [*(f"import {module}" for module in modules), "app.main.create_app()"]
    brought = dict(zip(statements, loaded_by(*statements), strict=True))
    assert [statement for statement, names in brought.items() if "torch" in names] == []
    assert not {"httpx", "numpy", "safetensors"} & brought["import gradsmith"]
    assert "matplotlib" not in brought["app.main.create_app()"]


def test_the_science_brings_no_web_no_redis_and_no_sql_and_one_process_pays_nothing_for_torch_distributed():
    program = """
import sys, torch
def parts(): return {name for name in sys.modules if name.startswith("torch.distributed")}
before = parts()
from models.meta_train import meta_train
from models.parallel import Alone
Alone().sum_(torch.ones(1))
assert parts() == before, parts() - before
"""
    names = set(started(program + NAMES).split())
    assert "torch" in names
    assert not {"fastapi", "starlette", "redis", "rq", "sqlalchemy", "httpx"} & names
