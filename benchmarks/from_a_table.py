"""From a table to an optimizer and its verdict: the commands of docs/your-own-problem.md, and two tables of real data.

    ./run bench from_a_table [--part commands clinics wine] [--seed N] [--dry]

Starts the service as `./run serve` does, on an empty data folder, with one worker. `commands` runs the page's blocks as
they stand. `clinics` and `wine` bring the tables of examples/tables.py through the public API: logistic regression for
each of 200 clinics, and softmax regression on wines.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradsmith
from benchmarks.core import report as core_report
from benchmarks.core.environment import ROOT
from benchmarks.learned_vs_tuned.report import machine
from gradsmith.types import Report
from workshop.served import Service, service

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
PAGE = ROOT / "docs" / "your-own-problem.md"
ASKED_SECONDS = 600
PARTS: dict[str, dict[str, Any]] = {
    "clinics": {
        "file": "clinics.csv",
        "roles": {"target": "diagnosis", "group": "clinic"},
        "tasks": {"kind": "regression", "loss": "logistic", "l2": 0.01},
        "words": "logistic regression for each of 200 clinics made from scikit-learn's breast-cancer data",
    },
    "wine": {
        "file": "wine.csv",
        "roles": {"target": "kind"},
        "tasks": {"kind": "regression", "loss": "softmax", "l2": 0.01, "most_rows": 64},
        "words": "softmax regression on 64 wines that each task draws",
    },
}


def commands(over: Service, folder: Path) -> list[str]:
    """The page's blocks in one shell, with what they print."""
    blocks = "".join(re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S))
    prepared = f'set -e\ngradsmith() {{ "{sys.executable}" -m gradsmith.cli "$@"; }}\n'
    begun = time.perf_counter()
    done = subprocess.run(
        ["bash", "-c", prepared + blocks], cwd=folder, env={**os.environ, "GRADSMITH_URL": over.url, "COLUMNS": "110"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"the page's commands ended with {done.returncode}: {done.stdout}{done.stderr}")
    within = "within" if seconds <= ASKED_SECONDS else "NOT within"
    printed = [line.rstrip() for line in done.stdout.splitlines() if line.strip()]
    return [
        "## From a table to a verdict: the commands of docs/your-own-problem.md",
        "",
        f"{seconds:.0f} s from the CSV file to `best` and its verdict, {within} the {ASKED_SECONDS} s asked for.",
        "",
        "```",
        *printed,
        "```",
        "",
    ]


def measured(over: Service, folder: Path, name: str, seed: int) -> list[str]:
    """A table brought, its family declared, trained and evaluated: training loss, and what held-out rows say."""
    part = PARTS[name]
    begun = time.perf_counter()
    with gradsmith.Client(over.url) as client:
        brought = client.datasets.create(folder / part["file"], name=f"{name}-rows", **part["roles"])
        client.families.create(f"{name}-rows", {**part["tasks"], "dataset": brought.name})
        trained = client.jobs.wait(client.jobs.create(family=f"{name}-rows", seed=seed))
        assert trained.evaluation is not None, "an evaluation follows by default"
        report = client.jobs.report(client.jobs.wait(trained.evaluation))
        seconds = time.perf_counter() - begun
        card = client.optimizers.get(trained.optimizer or "").card
    return [
        f"## From a table to a verdict: {part['words']}",
        "",
        f"{seconds:.0f} s from the file to the verdict, {card['training']['meta_steps']} meta-steps. "
        f"By training loss: {_verdict(report)}",
        "",
        "| | loss at the end | over the curve | held-out loss at the end | right |",
        "|---|---|---|---|---|",
        *(_row(each, report) for each in report.optimizers),
        "",
    ]


def _verdict(report: Report) -> str:
    best = report.comparisons["best_baseline"]
    told = [
        f"{report.verdict[criterion]} at {best[criterion]['ratio_of_means']:.3f} "
        f"[{best[criterion]['ratio_interval'][0]:.3f}, {best[criterion]['ratio_interval'][1]:.3f}] of tuned "
        f"{best[criterion]['baseline']}'s {words}"
        for criterion, words in (("final", "last five steps"), ("area", "area"))
    ]
    return "; ".join(told) + "."


def _row(name: str, report: Report) -> str:
    held = (report.raw.get("held_out") or {}).get(name, {})
    of = report.optimizers[name]
    numbers = (of["final"]["mean"], of["area"]["mean"], held.get("loss"))
    cells = ["" if number is None else f"{number:.4g}" for number in numbers]
    right = held.get("accuracy")
    return f"| {name} | {' | '.join(cells)} | {'' if right is None else f'{100 * right:.1f} %'} |"


def said_of(part: str, seed: int) -> str:
    """The command that makes a part, and where and when it runs."""
    how = f"`./run bench from_a_table --part {part} --seed {seed}`, {time.strftime('%Y-%m-%d')}, {machine()}"
    return f"{how}; load average before: {os.getloadavg()[0]:.1f}."


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./run bench from_a_table", description="From a table to a verdict.")
    parser.add_argument("--part", nargs="+", choices=["commands", *PARTS], default=["commands", *PARTS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print, but do not write RESULTS.md")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="gs-bench-") as place:
        folder = Path(place)
        subprocess.run([sys.executable, str(ROOT / "examples" / "tables.py"), place], check=True)
        with service(None, workers=1, data=folder / "data") as over:
            for part in options.part:
                how = said_of(part, options.seed)  # before the run: the checkout may change meanwhile
                found = commands(over, folder) if part == "commands" else measured(over, folder, part, options.seed)
                section = [found[0], "", how, *found[1:]]
                print("\n".join(section), flush=True)
                if not options.dry:
                    core_report.write(
                        RESULTS, section[:-1], (f"<!-- from_a_table {part} -->", f"<!-- end of {part} -->")
                    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
