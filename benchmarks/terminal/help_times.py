"""How long `gradsmith --help` takes, beside a Python that does nothing and one that imports what it is made with."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

HELP = [sys.executable, "-m", "gradsmith.cli"]
PASS, LIBRARIES = "python -c pass", 'python -c "import typer, rich"'
PAGES = (
    "",
    "train",
    "sweep",
    "jobs",
    "jobs list",
    "optimizers",
    "optimizers pull",
    "families",
    "data",
    "keys",
    "login",
)
TARGET_SECONDS = 0.2
_HEAVY = ("torch", "httpx", "numpy")


@dataclass(frozen=True)
class Times:
    """One command, in the order of the rounds. seconds: by the clock; computed: seconds of a core"""

    name: str
    seconds: tuple[float, ...]
    computed: tuple[float, ...]

    @property
    def least(self) -> float:
        return min(self.seconds)


def measure(rounds: int) -> list[Times]:
    """All commands in turn, round by round, so that what else the machine does meets all of them."""
    commands = {PASS: [sys.executable, "-c", "pass"], LIBRARIES: [sys.executable, "-c", "import typer, rich"]}
    commands |= {" ".join(f"gradsmith {page} --help".split()): [*HELP, *page.split(), "--help"] for page in PAGES}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            taken = _timed(command)
            if number:  # the first round fills the caches
                found[name].append(taken)
    return [Times(name, *map(tuple, zip(*each, strict=True))) for name, each in found.items()]  # type: ignore[arg-type]


def ratio(times: Times, base: Times) -> float:
    """Median over the rounds of how many times as long as `base` it computed."""
    return statistics.median(own / other for own, other in zip(times.computed, base.computed, strict=True))


def heavy() -> list[str]:
    """Which of the heavy packages the help of any command imports."""
    pages = [[*page.split(), "--help"] for page in PAGES]
    code = (
        "import sys\nfrom gradsmith.cli.program import program\n"
        f"for page in {pages!r}:\n    try:\n        program(page)\n    except SystemExit:\n        pass\n"
        f"print(sorted(set({_HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [name.strip(" '") for name in done.stderr.strip().strip("[]").split(",") if name]


def _timed(command: Sequence[str]) -> tuple[float, float]:
    before, began = os.times(), time.perf_counter()
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    seconds, after = time.perf_counter() - began, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, spent
