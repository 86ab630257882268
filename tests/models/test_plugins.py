"""Kinds of families that the file in GRADSMITH_FAMILIES adds, each read by a fresh Python."""

import json
import os
import subprocess
import sys

import pytest

from models.families import KINDS

GOOD = """
from typing import Literal
from models.families.base import Costs, Kind, Part, TaskSpec

class Bowl(TaskSpec):
    kind: Literal["bowl"] = "bowl"
    def parts(self): return (Part("theta", (3,), "vector"),)
    def costs(self): return Costs(held=3)

KIND = Kind(Bowl, tasks="bowls:Bowls")
"""
ASKED = """
import json, sys
from models.families import KINDS, PROBLEMS
print(json.dumps({"kinds": list(KINDS), "problems": [p.reason for p in PROBLEMS], "torch": "torch" in sys.modules}))
"""


def register_with(tmp_path, text):
    path = tmp_path / "my_families.py"
    path.write_text(text)
    environment = os.environ | {"GRADSMITH_FAMILIES": str(path)}
    done = subprocess.run(
        [sys.executable, "-c", ASKED], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout), done.stderr


def test_a_file_adds_a_kind_beside_ours(tmp_path):
    told, _ = register_with(tmp_path, GOOD)
    assert told == {"kinds": [*KINDS, "bowl"], "problems": [], "torch": False}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import torch", "must not import torch"),
        (GOOD.replace('"bowl"', '"mlp"'), "there is a kind 'mlp' already"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
        ("x = 1", "neither KINDS nor KIND"),
    ],
)
def test_a_plug_in_that_fails_is_a_problem_with_a_traceback_and_takes_nothing_down(tmp_path, text, reason):
    told, logged = register_with(tmp_path, text)
    assert told["kinds"] == list(KINDS)
    assert len(told["problems"]) == 1
    assert reason in told["problems"][0]
    assert "Traceback" in logged
    assert not told["torch"]
