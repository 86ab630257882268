"""The command line: prints a row for every seed, writes the family's section of RESULTS.md and its picture."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

import torch

from benchmarks.core import report as core_report
from benchmarks.core.environment import ROOT
from benchmarks.learned_vs_tuned import measure, picture, report
from models.baselines import DEFAULT_TUNED, TUNED
from models.families import FAMILIES
from models.spec import overridden

RESULTS = ROOT / "benchmarks" / "RESULTS.md"


def main() -> int:
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    family = FAMILIES[arguments.family]
    plan = family.evaluation.model_copy(update={"baselines": tuple(arguments.baselines or DEFAULT_TUNED)})
    recipe = overridden(family.recipe, arguments.recipe)
    family = family.model_copy(update={"evaluation": plan, "recipe": recipe})
    rules = [
        measure.trained(
            family, seed, meta_steps=arguments.meta_steps, threads=arguments.threads, data_dir=arguments.data,
            keep=arguments.keep,
        )
        for seed in arguments.seeds
    ]  # fmt: skip
    tunings, baselines = measure.baselines(family, arguments.data)
    rows = measure.measured(family, rules, baselines, arguments.data)
    command = "./run bench learned_vs_tuned " + shlex.join(_without_paths(sys.argv[1:]))
    lines = report.lines(family, rows, tunings, baselines, command)
    apart = bool(arguments.baselines or arguments.recipe)
    if apart:
        lines = lines[:-2]  # the picture
    print("\n".join(lines))
    if not arguments.dry:
        # Other baselines and other recipes have a section of their own beside the family's, and no picture.
        beside = f" against {', '.join(arguments.baselines)}" if arguments.baselines else ""
        beside += f" by {json.dumps(arguments.recipe)}" if arguments.recipe else ""
        core_report.write(RESULTS, lines, report.marks(family.name + beside))
        written = [RESULTS, *([] if apart else [picture.draw(family, rows, tunings, baselines)])]
        for path in written:
            print(f"written: {path.relative_to(ROOT)}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run bench learned_vs_tuned",
        description="Meta-train a family on several seeds, and measure each against tuned baselines.",
    )
    parser.add_argument("--family", choices=sorted(FAMILIES), default="quadratic")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--meta-steps", type=int, default=None, help="default: the family's recipe")
    parser.add_argument(
        "--baselines", nargs="+", choices=sorted(TUNED), default=[], metavar="NAME",
        help="what it is measured against, in a section of its own; default: the five that every family has",
    )  # fmt: skip
    parser.add_argument(
        "--recipe", type=json.loads, default={}, metavar="JSON",
        help="changes to the family's recipe, as a job sends them, in a section of its own",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, default=None, help="data folder, for families that need one")
    parser.add_argument("--keep", type=Path, default=None, help="store trained rules here and use those that are")
    parser.add_argument("--dry", action="store_true", help="print, but write neither RESULTS.md nor the picture")
    return parser


def _without_paths(arguments: list[str]) -> list[str]:
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument not in ("--keep", "--dry"):
            kept.append("FOLDER" if kept[-1:] == ["--data"] else argument)
        skip = argument == "--keep"
    return kept
