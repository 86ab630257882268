"""The command line: trains, measures and writes the section of RESULTS.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.core import report as core_report
from benchmarks.core.environment import ROOT
from benchmarks.learned_vs_tuned import measure
from benchmarks.panels import held_out, section, tables
from benchmarks.panels.catalogue import PANELS, Panel
from benchmarks.panels.costs import costs
from benchmarks.panels.runs import of_rule
from benchmarks.panels.tier import tier, untuned_adam
from benchmarks.panels.trainings import TRAININGS

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
MARKS = ("<!-- panels of the whole tier -->", "<!-- end of panels of the whole tier -->")


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
    lines = section.lines(found, unseen, rules, _command(options), panels)
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
        prog="./run bench panels",
        description="Learned optimizers against the whole tuned tier, panel by panel.",
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
