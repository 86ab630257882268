"""Jobs whose memory is predicted, and the peak that a process of a worker really reaches.

Each job runs in a process of its own, which imports and warms up what a worker's child does but has no connection to
the stores (10 MB); its peak is VmHWM of /proc, so this runs on Linux alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.families import FAMILIES
from models.families.recipes import PAPER
from models.memory import Computes, memory_estimate_bytes
from models.rule_spec import RULE_SPECS, RuleSpec
from models.spec import EvaluateSpec, JobSpec, MetaTrainSpec, PreviewPlan, PreviewSpec, Resources, overridden

ROOT = Path(__file__).parents[1]

CHILD = """
import sys
from pathlib import Path
import torch
from gradsmith.rules import build
from gradsmith.rules import weights as rule_weights
from models.evaluation.evaluate import evaluate
from models.meta_train import TrainingResult, meta_train
from models.preview import preview
from models.rule_spec import RULE_SPECS, RuleSpec
from models.spec import EvaluateSpec, MetaTrainSpec, PreviewSpec
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
elif kind == "evaluate":
    spec = EvaluateSpec.model_validate_json(text)
    rule = build(spec.rule.config)
    rule.initialise(torch.Generator().manual_seed(0))
    for event in evaluate(rule_weights.dumps(rule), spec, data_dir=data_dir):
        pass
    ran = event.result["runtime"]
elif kind == "preview":
    for event in preview(PreviewSpec.model_validate_json(text), data_dir=data_dir):
        pass
    ran = event.result["runtime"]
else:
    raise SystemExit(f"{kind}: no such kind of job is measured")
print(ran["backend"], started, status("VmHWM"))
"""


@dataclass(frozen=True)
class Case:
    """One job that is measured."""

    name: str
    spec: JobSpec


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
    spec = FAMILIES[family]
    if tasks:
        spec = spec.model_copy(update={"tasks": overridden(spec.tasks, tasks)})
    short = {"meta_steps": 2, "validation_interval": 2, "starts": 1}
    return Case(
        name,
        MetaTrainSpec(
            family=spec,
            seed=0,
            recipe=overridden(PAPER.get(spec.name, spec.recipe), short | (recipe or {})),
            evaluate=False,
            evaluation=spec.evaluation,
            resources=Resources(**resources),
        ),
    )


def evaluation(
    name: str, family: str, plan: dict[str, Any] | None = None, rule: RuleSpec | None = None, **resources: Any
) -> Case:
    """An evaluation against one baseline: the others need no more at a time."""
    spec = FAMILIES[family]
    return Case(
        name,
        EvaluateSpec(
            optimizer="opt_00000000000000000000000000",
            rule=rule or RULE_SPECS["lstm"](),
            family=spec,
            seed=0,
            evaluation=overridden(spec.evaluation, plan or {}),
            resources=Resources(**resources),
        ),
    )


def preview(name: str, family: str, **plan: Any) -> Case:
    """A preview with Adam alone."""
    spec = FAMILIES[family]
    return Case(name, PreviewSpec(family=spec, seed=0, evaluation=PreviewPlan(**plan), resources=Resources()))


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


def predicted(case: Case, ran: Measured) -> int:
    """The memory that a worker with this backend predicts, in bytes."""
    names: dict[str, Computes] = {"native": "native", "torch": "torch", "reference": "reference"}
    return memory_estimate_bytes(case.spec, computes=names[ran.backend.partition("-")[0]])


def cases() -> list[Case]:
    """Small and large, every family, rule sizes, windows, every kind of job, every backend of the CPU."""
    few, wide = {"validation_tasks": 8}, {"hidden": [833]}
    torch = {"backend": "torch"}
    return [
        training("quadratic", "quadratic"),
        training("quadratic", "quadratic", **torch),
        training("quadratic", "quadratic", {"horizon": 20}, backend="reference"),
        training("65,536 quadratics", "quadratic", few | {"tasks": 65_536}),
        training("65,536 quadratics, unroll 4", "quadratic", few | {"tasks": 65_536, "unroll_steps": 4}, **torch),
        training("4,096 quadratics, unroll 100", "quadratic", few | {"tasks": 4096, "unroll_steps": 100}),
        training("4,096 quadratics, 64 units", "quadratic", few | {"tasks": 4096, "rule": {"hidden_size": 64}}),
        training("512 quadratics, 64 units", "quadratic", few | {"tasks": 512, "rule": {"hidden_size": 64}}, **torch),
        training("100 quadratics of 1,000", "quadratic", few | {"tasks": 100}, {"dimension": 1000}),
        training("1,000,000 coordinates", "digits-mlp", {"tasks": 16, "unroll_steps": 10, "validation_tasks": 1}, wide),
        training("digits MLP", "digits-mlp", {"validation_tasks": 16}),
        training("64 digits MLPs", "digits-mlp", {"tasks": 64, "validation_tasks": 8}),
        training("64 digits MLPs", "digits-mlp", {"tasks": 64, "validation_tasks": 8, "unroll_steps": 10}, **torch),
        training("MNIST MLP", "mnist-mlp", {"validation_tasks": 2}),
        training("16 MNIST MLPs", "mnist-mlp", {"tasks": 16, "validation_tasks": 2}),
        evaluation("evaluate quadratic", "quadratic"),
        evaluation("evaluate quadratic, 65,536 tasks", "quadratic", {"horizon": 40, "test_tasks": 65_536}),
        evaluation("evaluate digits MLP", "digits-mlp", {"horizon": 20}),
        preview("preview quadratic", "quadratic"),
        preview("preview quadratic, 65,536 tasks", "quadratic", tuning_tasks=65_536, horizon=20),
        preview("preview digits MLP", "digits-mlp", horizon=20),
    ]
