"""A rule trained on many widths and depths against one trained on a single network, on networks outside both.

    ./run bench widths_and_depths [--seeds 0 1 2] [--meta-steps 600] [--tasks 64] [--dry]

Both have the recipe of `digits-mlp`, as many meta-steps and the same seeds; only the tasks differ. One has networks on
digits with a layer of 20 ReLU units, the other a `mixture` of one or two layers of 10 to 40. Both are then run on
networks of other widths and depths, on the same held-out tasks. Writes a section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.report.words import number
from benchmarks.core import report as core_report
from benchmarks.core.environment import ROOT
from benchmarks.learned_vs_tuned.report import machine
from gradsmith.rules import weights as rule_weights
from models.backends import backend_for, dtype_of
from models.curves import Curves
from models.families import FAMILIES
from models.families.mixture import MixtureSpec
from models.families.mlp import MLPSpec
from models.meta_train import TrainingResult, Validated, meta_train
from models.rollout import Learned, Sample, curves, run
from models.spec import FamilySpec, MetaTrainSpec, Resources, Split
from models.task_spec import TaskSpec
from models.tasks.catalogue import open_for_testing

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
SECTION = ("<!-- widths_and_depths -->", "<!-- end of widths_and_depths -->")
POINT = MLPSpec(hidden=(20,), activation="relu")
SPREAD = MixtureSpec.model_validate(
    {
        "families": [{"tasks": POINT.model_dump(), "vary": {"width": {"low": 10, "high": 40}, "depth": [1, 2]}}],
        "draws": 8,
    }
)
INSIDE = ((20,), (14,), (30, 30))
OUTSIDE = ((4,), (100,), (200,), (20, 20, 20), (60, 60, 60), (100, 100, 100, 100))


@dataclass(frozen=True)
class Ratio:
    """The ratio of the losses of two rules: the geometric mean over tasks, and its 95 % interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: Tensor, theirs: Tensor) -> Ratio:
        """(tasks,), (tasks,)"""
        logs = (ours.double().log() - theirs.double().log()).nan_to_num(0.0, 50.0, -50.0)
        error = 1.96 * float(logs.std()) / math.sqrt(len(logs))
        return cls(*(math.exp(float(logs.mean()) + by) for by in (0.0, -error, error)))

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def trained(tasks: TaskSpec, seed: int, meta_steps: int) -> TrainingResult:
    """A rule trained on these tasks by the recipe of `digits-mlp`; says on stderr how far it is."""
    usual = FAMILIES["digits-mlp"]
    validation_tasks = max(4, 32 // len(tasks.weighted_points))
    recipe = usual.recipe.model_copy(
        update={"meta_steps": meta_steps, "patience": None, "validation_tasks": validation_tasks}
    )
    family = FamilySpec(**dict(usual) | {"name": tasks.kind, "tasks": tasks, "recipe": recipe})
    spec = MetaTrainSpec(
        family=family, seed=seed, recipe=recipe, evaluate=False, evaluation=usual.evaluation, resources=Resources()
    )
    for event in meta_train(spec, threads=1):
        if isinstance(event, Validated):
            print(f"{tasks.kind}, seed {seed}, step {event.step}: {event.score:.4f}", file=sys.stderr, flush=True)
        last = event
    assert isinstance(last, TrainingResult)
    return last


def measured(weights: bytes, hidden: tuple[int, ...], tasks: int, horizon: int) -> Curves:
    """The rule's curves on held-out tasks of these networks."""
    spec = POINT.model_copy(update={"hidden": hidden})
    rule = rule_weights.loads(weights)
    backend = backend_for(rule, dtype_of(rule), torch.device("cpu"), parts=spec.parts())
    contender = Learned(backend, rests=True, horizon=horizon)
    return curves(run(contender, open_for_testing(spec), Sample(Split.TEST, 0, 0, tasks), horizon))


def compared(seeds: Sequence[int], meta_steps: int, tasks: int) -> list[str]:
    """The section's lines."""
    horizon = FAMILIES["digits-mlp"].recipe.horizon
    rows = [
        "| hidden layers | seed | last loss, one network | last loss, many | last: many / one (95 %) | "
        "area: many / one (95 %) |",
        "|---|---|---|---|---|---|",
    ]
    seconds: dict[str, list[float]] = {"one": [], "many": []}
    outside: list[float] = []
    for seed in seeds:
        rules = {}
        for name, spec in (("one", POINT), ("many", SPREAD)):
            started = time.perf_counter()
            rules[name] = trained(spec, seed, meta_steps).weights
            seconds[name].append(time.perf_counter() - started)
        for hidden in (*INSIDE, *OUTSIDE):
            one, many = (measured(rules[name], hidden, tasks, horizon) for name in ("one", "many"))
            last, area = Ratio.of(many.final, one.final), Ratio.of(many.area, one.area)
            outside += [last.mean] if hidden in OUTSIDE else []
            losses = [number(float(each.final.mean())) for each in (one, many)]
            shape = " x ".join(map(str, hidden)) + ("" if hidden in OUTSIDE else " (inside)")
            rows.append(f"| {shape} | {seed} | {' | '.join(losses)} | {last} | {area} |")
    mean = math.exp(sum(map(math.log, outside)) / len(outside))
    took = ", ".join(f"{name} {number(sum(each) / len(each))} s" for name, each in seconds.items())
    return [
        f"Last loss outside both, geometric mean over networks and seeds: many / one = {mean:.3f}; the rule that was "
        f"trained on many widths and depths is lower in {sum(ratio < 1 for ratio in outside)} of {len(outside)}. A "
        f"training took {took}.",
        "",
        *rows,
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./run bench widths_and_depths", description="A distribution of networks against a single one."
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--meta-steps", type=int, default=200)
    parser.add_argument("--tasks", type=int, default=32, help="held-out tasks of each network")
    parser.add_argument("--dry", action="store_true", help="print, but do not write RESULTS.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    begun = f"{machine()}; load average before: {os.getloadavg()[0]:.1f}."
    text = [
        "## Many widths and depths against one network",
        "",
        f"`./run bench widths_and_depths --seeds {' '.join(map(str, options.seeds))} --meta-steps {options.meta_steps} "
        f"--tasks {options.tasks}`, {time.strftime('%Y-%m-%d')}, {begun} One: networks on digits with a layer of 20 "
        f"ReLU units. Many: one or two layers of 10 to 40. Horizon {FAMILIES['digits-mlp'].recipe.horizon}.",
        "",
        *compared(options.seeds, options.meta_steps, options.tasks),
    ]
    print("\n".join(text), flush=True)
    if not options.dry:
        core_report.write(RESULTS, text, SECTION)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
