"""The memory that a job is predicted to need, against the peak that a process of a worker really reaches.

    ./run bench memory [--data FOLDER] [--only WORDS]

Prints a table in Markdown, and ends with status 1 when a prediction is off by more than 20 %. --data is the folder of a
service that has MNIST.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from workshop.memory import cases, measured, predicted

MIB = 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Predicted against measured memory of jobs.")
    parser.add_argument("--data", type=Path, help="data folder of a service; without it, jobs on MNIST are left out")
    parser.add_argument("--only", default="", help="only jobs whose name has this in it")
    options = parser.parse_args(arguments)
    chosen = [case for case in cases() if options.only in case.name and ("MNIST" not in case.name or options.data)]
    if not chosen:
        parser.error(f"no job has {options.only!r} in its name; the names: {'; '.join(case.name for case in cases())}")
    print(f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}\n")
    print("| job | backend | predicted MiB | measured MiB | off by |\n|---|---|---|---|---|")
    worst = 0.0
    for case in chosen:
        ran = measured(case, options.data)
        estimate = predicted(case, ran)
        off = estimate / ran.peak_bytes - 1
        worst = max(worst, abs(off))
        row = (case.name, ran.backend, f"{estimate / MIB:,.0f}", f"{ran.peak_bytes / MIB:,.0f}", f"{100 * off:+.0f} %")
        print(f"| {' | '.join(row)} |", flush=True)
    print(f"\nThe worst prediction is off by {100 * worst:.0f} %.")
    return int(worst > 0.2)


if __name__ == "__main__":
    sys.exit(main())
