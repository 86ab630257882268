"""The memory that a job is predicted to need, against the peak that a process of a worker really reaches.

    ./run bench memory [--data FOLDER] [--only WORDS]

Each job runs in a process of its own, which imports and warms up what a worker's child does; its peak is VmHWM of
/proc, so this runs on Linux alone. Prints a table in Markdown; --data is the folder of a service that has MNIST.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.spec import BUILT_IN_FAMILIES, EvaluateSpec, MetaTrainSpec, Resources, RuleSpec, overridden

ROOT = Path(__file__).parents[1]
MIB = 2**20

CHILD = """
import sys
from pathlib import Path
from gradsmith.rules import build, initialise
from gradsmith.rules import weights as rule_weights
from models.evaluate import evaluate
from models.meta_train import TrainingResult, meta_train
from models.spec import EvaluateSpec, MetaTrainSpec
from workers import run

def status(name):
    line = next(line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) * 1024

run.warm_up()
kind, text, data = sys.argv[1:]
data_dir = Path(data) if data else None
started = status("VmRSS")
if kind == "meta_train":
    spec = MetaTrainSpec.model_validate_json(text)
    for event in meta_train(spec, data_dir=data_dir):
        if isinstance(event, TrainingResult):
            ran = event.summary["runtime"]
else:
    spec = EvaluateSpec.model_validate_json(text)
    rule = build(spec.rule.model_dump())
    initialise(rule)
    for event in evaluate(rule_weights.dumps(rule), spec, data_dir=data_dir):
        pass
    ran = event.result["runtime"]
print(ran["backend"], started, status("VmHWM"))
"""


@dataclass(frozen=True)
class Case:
    """One job that is measured."""

    name: str
    spec: MetaTrainSpec | EvaluateSpec


@dataclass(frozen=True)
class Measured:
    """backend: as the run names it; started_bytes: of the process before the job; peak_bytes: VmHWM at its end."""

    backend: str
    started_bytes: int
    peak_bytes: int


def training(
    name: str, family: str, recipe: dict[str, Any] | None = None, tasks: dict[str, Any] | None = None, **resources: Any
) -> Case:
    """Two meta-steps and a validation, which reach the peak of a thousand."""
    spec = BUILT_IN_FAMILIES[family]
    if tasks:
        spec = spec.model_copy(update={"tasks": overridden(spec.tasks, tasks)})
    short = {"meta_steps": 2, "validation_interval": 2}
    return Case(
        name,
        MetaTrainSpec(
            family=spec,
            seed=0,
            recipe=overridden(spec.recipe, short | (recipe or {})),
            evaluate=False,
            evaluation=spec.evaluation,
            resources=Resources(**resources),
        ),
    )


def evaluation(
    name: str, family: str, plan: dict[str, Any] | None = None, rule: RuleSpec | None = None, **resources: Any
) -> Case:
    """An evaluation against one baseline: the others need no more at a time."""
    spec = BUILT_IN_FAMILIES[family]
    return Case(
        name,
        EvaluateSpec(
            optimizer="opt_00000000000000000000000000",
            rule=rule or RuleSpec(),
            family=spec,
            seed=0,
            evaluation=overridden(spec.evaluation, plan or {}),
            resources=Resources(**resources),
        ),
    )


def measured(case: Case, data: Path | None = None, **environment: str) -> Measured:
    """Run the job in a process of its own. Raises subprocess.CalledProcessError when it fails."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, case.spec.kind, case.spec.model_dump_json(), str(data or "")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | environment,
    )
    backend, started, peak = done.stdout.split()
    return Measured(backend, int(started), int(peak))
