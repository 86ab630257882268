"""The command line: trains, measures and writes the section of RESULTS.md."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.core import report as core_report
from benchmarks.core.environment import ROOT
from benchmarks.learned_vs_tuned import measure
from benchmarks.learned_vs_tuned.report import machine
from benchmarks.panels import held_out, tables
from benchmarks.panels.catalogue import PANELS, Panel
from benchmarks.panels.costs import costs
from benchmarks.panels.runs import TEST_TASKS, of_rule
from benchmarks.panels.tier import HOPELESS, SCHEDULES, tier, untuned_adam
from benchmarks.panels.trainings import TRAININGS
from models.baselines import DEFAULT_TUNED

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
FEW = "16 tasks; for 1,000 steps 4"
MARKS = ("<!-- panels -->", "<!-- end of panels -->")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    panels = [
        panel
        for panel in PANELS
        if panel.training in options.trained_on and panel.name in options.panels and _has_data(panel, options.data)
    ]
    rules = {name: trained(name, options) for name in dict.fromkeys(panel.training for panel in panels)}
    found = []
    unseen = []
    for panel in panels:
        if panel.on == "held_out":
            weights = [rule.weights for rule in rules[panel.training]]
            unseen.append(held_out.line(held_out.measured(panel, weights, options.data, options.keep)))
            continue
        found.append(measured(panel, rules[panel.training], options.data, options.keep))
        print(tables.in_steps(found[-1]), file=sys.stderr, flush=True)
    lines = section(found, unseen, rules, _command(options))
    print("\n".join(lines))
    if not options.dry:
        core_report.write(RESULTS, lines, MARKS)
    return 0


def trained(name: str, options: argparse.Namespace) -> list[measure.Trained]:
    """The rules of a training, one for each meta-seed."""
    training = TRAININGS[name]
    folder = options.keep / "rules" / training.fingerprint
    seeds = range(training.seeds) if options.seeds is None else options.seeds
    return [
        measure.trained(training.spec, seed, meta_steps=None, threads=1, data_dir=options.data, keep=folder)
        for seed in seeds
    ]


def measured(panel: Panel, rules: Sequence[measure.Trained], data_dir: Path | None, keep: Path) -> tables.Measured:
    """All that the tables say of a panel."""
    found = [of_rule(panel, rule.weights, data_dir, keep) for rule in rules]
    entries = tier(panel, data_dir, keep)
    spent = costs(panel, rules[0].weights, entries, data_dir, keep)
    return tables.Measured(panel, found, entries, untuned_adam(panel, data_dir, keep), spent)


def section(
    found: Sequence[tables.Measured], unseen: Sequence[str], rules: dict[str, list[measure.Trained]], command: str
) -> list[str]:
    """The section of RESULTS.md. unseen: the lines of panels on held-out data"""
    seconds = "; ".join(f"{name}: {_spent(each)}" for name, each in rules.items())
    lacking = [each for each in found if each.panel.left_out]
    found = [each for each in found if not each.panel.left_out]
    with_images = [each for each in found if len(each.untuned.test_losses)]
    return [
        "## Panels: learned against the whole tuned tier",
        "",
        f"`{command}`, {time.strftime('%Y-%m-%d')}, {machine()}.",
        "",
        f"{TEST_TASKS} test tasks; baselines {', '.join(DEFAULT_TUNED)}, each tuned on validation tasks of the panel's "
        f"own problem (32; for 1,000 steps 16) over {', '.join(SCHEDULES)}, on MNIST and for 1,000 steps by successive "
        f"halving. Those with a tuned mean up to {HOPELESS} times the best one's run on the test tasks. Meta-seeds, "
        f"and core-seconds of meta-training for the median seed: {seconds}.",
        "",
        *tables.STEPS_HEAD,
        *map(tables.in_steps, found),
        "",
        "On test images, after the last step. All were trained and tuned for training loss.",
        "",
        *tables.TEST_HEAD,
        *map(tables.on_test_images, with_images),
        "",
        f"The held-out objective: the loss on test images is what counts, at the end and at ten points of the curve. "
        f"Rules were trained with `on: held_out`, baselines tuned for the loss on validation images ({FEW}). Brackets "
        "are 95 % intervals over tasks and images, of the seed in the middle.",
        "",
        *held_out.HEAD,
        *unseen,
        "",
        "Ingredients left out, one at a time; the same tasks, steps and recipe otherwise.",
        "",
        *tables.LEFT_OUT_HEAD,
        *map(tables.left_out, lacking),
        "",
        "In equal time: each optimizer's own step on one task is counted, beside that task's gradient; each is the "
        "least of five medians of 15 rounds. The learned optimizer makes as many steps as fit, never more than the "
        "horizon.",
        "",
        *tables.SECONDS_HEAD,
        *map(tables.in_seconds, found),
    ]


def _spent(rules: Sequence[measure.Trained]) -> str:
    """How many meta-seeds, and the median of their core-seconds."""
    seconds: list[Any] = [rule.summary["core_seconds"] for rule in rules]
    return f"{len(rules)}, {statistics.median(seconds):.0f} s"


def _has_data(panel: Panel, data_dir: Path | None) -> bool:
    return data_dir is not None or "mnist" not in panel.problem.datasets


def _command(options: argparse.Namespace) -> str:
    command = "./run bench panels"
    if options.trained_on != list(TRAININGS):
        command += " --trained-on " + " ".join(f'"{name}"' if " " in name else name for name in options.trained_on)
    if len(options.panels) < len({panel.name for panel in PANELS}):
        command += " --panels " + " ".join(f'"{name}"' if " " in name else name for name in options.panels)
    if options.seeds is not None:
        command += f" --seeds {' '.join(map(str, options.seeds))}"
    return command if options.data is None else f"{command} --data FOLDER"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run bench panels", description="Learned optimizers against the whole tuned tier, panel by panel."
    )
    parser.add_argument(
        "--trained-on", nargs="+", choices=list(TRAININGS), default=list(TRAININGS), metavar="TRAINING",
        help=f"panels of these trainings (default: all): {', '.join(map(repr, TRAININGS))}",
    )  # fmt: skip
    names = list(dict.fromkeys(panel.name for panel in PANELS))
    parser.add_argument(
        "--panels", nargs="+", choices=names, default=names, metavar="PANEL",
        help=f"these problems alone (default: all): {', '.join(map(repr, names))}",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", help="default: as many as each training says")
    parser.add_argument("--data", type=Path, help="data folder, for MNIST; without it those panels are left out")
    parser.add_argument("--keep", type=Path, default=ROOT / "build" / "panels", help="where what was computed is kept")
    parser.add_argument("--dry", action="store_true", help="print, but do not write RESULTS.md")
    return parser
