"""The distribution of `./run test` itself: pytest-xdist's own grouping once stopped without a word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.scheduling import FIRST, SERVICE, TOGETHER

GROUPS = set(TOGETHER.values())

ROOT = Path(__file__).parents[1]
NOTES = """
import os
import pathlib
import pytest

@pytest.mark.parametrize("number", range(6))
def test_it(number):
    with (pathlib.Path(__file__).parents[{up}] / "ran").open("a") as ran:
        print(os.environ["PYTEST_XDIST_WORKER"], {name!r}, file=ran)
"""
CONFTEST = """
from tests.scheduling import ByFile

def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log)
"""


def test_all_that_is_named_is_there() -> None:
    assert [name for name in (*FIRST, *TOGETHER) if name not in GROUPS and not (ROOT / name).is_file()] == []


def test_a_file_and_what_stands_together_run_in_one_process_and_the_longest_begin(tmp_path: Path) -> None:
    files = [*TOGETHER, FIRST[0], "tests/test_of_many.py", "tests/test_more.py"]
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(NOTES.format(up=name.count("/"), name=name))
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-n", "2", "--import-mode=importlib", "."],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ran = [line.split() for line in (tmp_path / "ran").read_text().splitlines()]
    assert len(ran) == 6 * len(files)
    where = {name: {worker for worker, ran_here in ran if ran_here == name} for name in files}
    assert all(len(workers) == 1 for workers in where.values()), where
    for group in GROUPS:
        assert len(set.union(*(where[name] for name in TOGETHER if TOGETHER[name] == group))) == 1
    began = {worker: next(name for there, name in ran if there == worker) for worker, _ in ran}
    assert len(began) == 2
    assert FIRST[0] in began.values()
    assert {TOGETHER.get(name) for name in began.values()} == {None, SERVICE}
