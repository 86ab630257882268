"""The claim, panel by panel: rules of several meta-seeds against the best of the whole tuned tier, on problems that
they were trained for and on others.

    ./run bench panels [--trained-on digits] [--seeds 0 1 2 3 4] [--keep FOLDER]

Every baseline is tuned for each panel's own problem, horizon and criterion, over constant, linear and cosine schedules,
with one number of runs. All optimizers then run on the same test tasks. A ratio is that of the mean losses, learned
over the best baseline, of the last five steps and over the whole curve; below 1 the learned one is better. Seeds are
shown in their order, and the median counts. Trained rules and baselines' runs are kept in FOLDER and used again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.core import report as core_report
from benchmarks.core.environment import ROOT
from benchmarks.learned_vs_tuned import measure
from benchmarks.learned_vs_tuned.report import machine
from gradsmith.rules import weights as rule_weights
from models.backends import backend_for
from models.baselines import DEFAULT_TUNED, TUNED
from models.curves import Curves
from models.families import FAMILIES
from models.families.recipes import PAPER
from models.measured import TUNING_TRAJECTORY
from models.rollout import Learned, Sample, curves, run
from models.spec import FamilySpec, Recipe, Split, overridden
from models.task_spec import TaskSpec
from models.tasks.catalogue import open_for_testing, open_for_tuning
from models.tuning import tune

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
MARKS = ("<!-- panels -->", "<!-- end of panels -->")
SCHEDULES = ("constant", "linear", "cosine")
TEST_TASKS, TUNING_TASKS = 128, 32
SEED = 0


@dataclass(frozen=True)
class Training:
    """What is trained: a family's recipe, or another one for it."""

    family: str
    recipe: dict[str, Any] = field(default_factory=dict)
    paper: bool = False

    @property
    def spec(self) -> FamilySpec:
        family = FAMILIES[self.family]
        recipe: Recipe = overridden(PAPER[self.family] if self.paper else family.recipe, self.recipe)
        return family.model_copy(update={"recipe": recipe})


@dataclass(frozen=True)
class Panel:
    """One problem on which a training's rules are measured. gate: what the project asks for, last five / area."""

    name: str
    training: str
    horizon: int = 100
    tasks: dict[str, Any] = field(default_factory=dict)
    gate: str = ""


RELU = {"activation": "relu"}
DIGITS = FAMILIES["digits-mlp"]
TRAININGS = {
    "quadratic": Training("quadratic"),
    "digits": Training("digits-mlp"),
    "digits, 60 to 1,000 steps, with ReLU": Training(
        "digits-mlp",
        {
            "meta_steps": 800,
            "pool": 16,
            "horizon": 1000,
            "shortest_horizon": 60,
            "validation_horizons": [100, 1000],
            "validation_tasks": 16,
            "mixture": [
                {"family": "digits-mlp", "tasks": FAMILIES["digits-mlp"].tasks.model_dump() | RELU, "weight": 0.5}
            ],
        },
    ),
    "digits, the paper's method": Training("digits-mlp", paper=True),
    "mnist": Training("mnist-mlp"),
}
WIDE = "digits, 60 to 1,000 steps, with ReLU"
PANELS = (
    Panel("quadratics", "quadratic", gate="medians 0.05; won 93 %; 0.60 / 0.64"),
    Panel("digits, 100 steps", "digits", gate="0.25 / 0.58"),
    Panel("digits, 100 steps, the paper's method", "digits, the paper's method"),
    Panel("digits, 100 steps", WIDE),
    Panel("digits, 40 units", WIDE, tasks={"hidden": [40]}, gate="0.15"),
    Panel("digits, 2 x 20 units", WIDE, tasks={"hidden": [20, 20]}, gate="0.60"),
    Panel("digits, ReLU", WIDE, tasks=RELU, gate="0.45"),
    Panel("digits, 200 steps", WIDE, horizon=200, gate="0.10 / 0.70"),
    Panel("digits, 1,000 steps", WIDE, horizon=1000, gate="0.10 / 0.70, none diverges"),
    Panel("MNIST, 100 steps", "mnist", gate="0.93 / 0.87"),
    Panel("MNIST, 200 steps", "mnist", horizon=200, gate="1.00 / 0.95"),
    Panel("MNIST, 40 units", "mnist", tasks={"hidden": [40]}, gate="0.96"),
    Panel("MNIST, 2 x 20 units", "mnist", tasks={"hidden": [20, 20]}, gate="0.92"),
)


@dataclass(frozen=True)
class Losses:
    """One optimizer on a panel's test tasks: the last five steps' mean and the curve's, (tasks,) each."""

    final: torch.Tensor
    area: torch.Tensor

    @classmethod
    def of(cls, found: Curves) -> Losses:
        return cls(found.final.double(), found.area.double())


def problem(panel: Panel) -> TaskSpec:
    tasks: TaskSpec = overridden(FAMILIES[TRAININGS[panel.training].family].tasks, panel.tasks)
    return tasks


def tuned_tier(panel: Panel, data_dir: Path | None, keep: Path) -> dict[str, dict[str, Any]]:
    """The best baseline by each criterion: its name, schedule, learning rate and losses on the test tasks."""
    told = [problem(panel).model_dump_json(), panel.horizon, TEST_TASKS, TUNING_TASKS, DEFAULT_TUNED, SCHEDULES]
    path = keep / f"tier-{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]}.pt"
    if path.exists():
        kept: dict[str, dict[str, Any]] = torch.load(path, weights_only=True)
        return kept
    tuning, testing = open_for_tuning(problem(panel), data_dir), open_for_testing(problem(panel), data_dir)
    sample = Sample(Split.VALIDATION, SEED, TUNING_TRAJECTORY, TUNING_TASKS)
    best: dict[str, dict[str, Any]] = {}
    for name in DEFAULT_TUNED:
        sweep = measure.to_the_end(tune(TUNED[name], tuning, sample, panel.horizon, SCHEDULES))
        for criterion in ("final", "area"):
            chosen = sweep.best(criterion)
            found = Losses.of(curves(run(chosen, testing, Sample(Split.TEST, SEED, 0, TEST_TASKS), panel.horizon)))
            losses = found.final if criterion == "final" else found.area
            if criterion not in best or float(losses.mean()) < float(best[criterion]["losses"].mean()):
                best[criterion] = {
                    "name": name, "schedule": chosen.schedule, "rate": chosen.learning_rate, "losses": losses,
                }  # fmt: skip
    keep.mkdir(parents=True, exist_ok=True)
    torch.save(best, path)
    return best


def learned(panel: Panel, weights: bytes, data_dir: Path | None) -> Losses:
    """A rule on the panel's test tasks."""
    rule, tasks = rule_weights.loads(weights), problem(panel)
    backend = backend_for(rule, torch.float32, torch.device("cpu"), parts=tasks.parts())
    sample = Sample(Split.TEST, SEED, 0, TEST_TASKS)
    contender = Learned(backend, horizon=panel.horizon)
    return Losses.of(curves(run(contender, open_for_testing(tasks, data_dir), sample, panel.horizon)))


def row(panel: Panel, rules: Sequence[measure.Trained], data_dir: Path | None, keep: Path) -> str:
    """A line of the table."""
    tier = tuned_tier(panel, data_dir, keep)
    final, area = tier["final"], tier["area"]
    found = [learned(panel, rule.weights, data_dir) for rule in rules]
    ends = [float(each.final.mean() / final["losses"].mean()) for each in found]
    areas = [float(each.area.mean() / area["losses"].mean()) for each in found]
    medians = [float(each.final.median() / final["losses"].median()) for each in found]
    won = [float((each.final < final["losses"]).double().mean()) for each in found]
    each_seed = " ".join(f"{one:.3f}" for one in ends)
    best = (
        f"{TUNED[final['name']].label}, {final['schedule']}, {final['rate']:.3g}: {float(final['losses'].mean()):.4g}"
    )
    return (
        f"| {panel.name} | {panel.training} | {best} | **{_median(ends)} / {_median(areas)}** | {each_seed} "
        f"| {_median(medians)} | {100 * statistics.median(won):.0f} % | {panel.gate} |"
    )


def _median(numbers: Sequence[float]) -> str:
    return f"{statistics.median(numbers):.3f}"


def table(panels: Sequence[Panel], seeds: Sequence[int], data_dir: Path | None, keep: Path, command: str) -> list[str]:
    """The section of RESULTS.md."""
    lines, seconds = [], []
    trained: dict[str, list[measure.Trained]] = {}
    for panel in panels:
        if panel.training not in trained:
            spec, folder = TRAININGS[panel.training].spec, keep / panel.training.replace(" ", "-").replace(",", "")
            trained[panel.training] = [
                measure.trained(spec, seed, meta_steps=None, threads=1, data_dir=data_dir, keep=folder)
                for seed in seeds
            ]
            spent = statistics.median(one.summary["core_seconds"] for one in trained[panel.training])
            seconds.append(f"{panel.training}: {spent:.0f}")
        lines.append(row(panel, trained[panel.training], data_dir, keep))
        print(lines[-1], file=sys.stderr, flush=True)
    return [
        "## Panels: learned against the whole tuned tier",
        "",
        f"`{command}`, {time.strftime('%Y-%m-%d')}, {machine()}.",
        "",
        f"Meta-seeds {', '.join(map(str, seeds))}; {TEST_TASKS} test tasks; baselines {', '.join(DEFAULT_TUNED)}, each "
        f"tuned on {TUNING_TASKS} validation tasks over {', '.join(SCHEDULES)}. Core-seconds of meta-training, the "
        f"median seed: {'; '.join(seconds)}.",
        "",
        "| panel | trained on | best tuned baseline, its mean of the last five steps | ratio, last five / area "
        "| last five, each seed | ratio of medians | tasks won | asked for |",
        "|---|---|---|---|---|---|---|---|",
        *lines,
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./run bench panels", description="Learned optimizers against the whole tuned tier, panel by panel."
    )
    parser.add_argument(
        "--trained-on", nargs="+", choices=list(TRAININGS), default=list(TRAININGS), metavar="TRAINING",
        help=f"panels of these trainings (default: all): {', '.join(map(repr, TRAININGS))}",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--data", type=Path, help="data folder, for MNIST")
    parser.add_argument("--keep", type=Path, default=ROOT / "build" / "panels", help="where what was computed is kept")
    parser.add_argument("--dry", action="store_true", help="print, but do not write RESULTS.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    panels = [panel for panel in PANELS if panel.training in options.trained_on]
    if options.data is None:
        panels = [panel for panel in panels if not panel.training.startswith("mnist")]
    chosen = " ".join(f'"{name}"' if " " in name else name for name in options.trained_on)
    command = f"./run bench panels --trained-on {chosen} --seeds {' '.join(map(str, options.seeds))}"
    lines = table(panels, options.seeds, options.data, options.keep, command)
    print("\n".join(lines))
    if not options.dry:
        core_report.write(RESULTS, lines, MARKS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
