"""From POST to an optimizer that beats every tuned baseline, the evaluation included: where the time goes.

    ./run bench to_a_winner [--family quadratic digits-mlp mnist-mlp] [--seed N] [--mnist FOLDER] [--dry]

Starts the service as `./run serve` does, on an empty data folder, sends one POST with nothing but a family in it, and
follows its training and its evaluation. Each phase has its seconds by the client's clock and the seconds that all
processes of the service computed in it: on a machine that others use too, the second is what the phase needs.

MNIST takes part where --mnist names a folder with its four files: `./run bench to_a_winner --family mnist-mlp --mnist
FOLDER`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradsmith
from benchmarks.core import report as core_report
from benchmarks.core.environment import ROOT
from benchmarks.learned_vs_tuned.report import machine
from gradsmith.events import LogEvent, MetricsEvent, StatusEvent
from gradsmith.types import Job, Optimizer
from workshop.served import Service, service

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
MARKS = ("<!-- to_a_winner -->", "<!-- end of to_a_winner -->")
ASKED_SECONDS = {"quadratic": 20, "digits-mlp": 60, "mnist-mlp": 300}
READY = b" is ready for a job"
READY_SECONDS = 60.0
TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Phase:
    """seconds: by the clock; busy_seconds: that the service's processes computed"""

    name: str
    seconds: float
    busy_seconds: float


@dataclass
class Phases:
    """What has gone by since `begin`, cut into phases."""

    found: list[Phase] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """What comes now is the first phase's."""
        self._clock, self._busy = time.perf_counter(), busy_seconds()

    def end(self, name: str) -> None:
        """What has passed since the last phase was this one; a name that is there already goes on."""
        clock, busy = time.perf_counter(), busy_seconds()
        if not self.found or self.found[-1].name != name:
            self.found.append(Phase(name, 0.0, 0.0))
        self.found[-1].seconds += clock - self._clock
        self.found[-1].busy_seconds += busy - self._busy
        self._clock, self._busy = clock, busy


def busy_seconds() -> float:
    """Processor seconds of all processes below this one, those that have ended and been waited for included."""
    parents, ticks = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        parents[int(entry.name)] = int(fields[1])
        ticks[int(entry.name)] = sum(map(int, fields[11:15]))  # own, and of children that were waited for
    return sum(ticks[process] for process in ticks if _is_below(process, parents)) / TICK


def _is_below(process: int, parents: dict[int, int]) -> bool:
    while process in parents:
        process = parents[process]
        if process == os.getpid():
            return True
    return False


def measured(family: str, seed: int, mnist: Path | None) -> dict[str, Any]:
    """The phases from POST to the verdict, and what the evaluation found."""
    with tempfile.TemporaryDirectory(prefix="gs-bench-") as folder:
        if mnist is not None:
            importing = [sys.executable, "-m", "models.tasks.data", "import", "mnist", str(mnist), "--data", folder]
            subprocess.run(importing, check=True, stdout=subprocess.DEVNULL)
        before, after = Phases(), Phases()
        with service(None, workers=1, data=Path(folder)) as over, gradsmith.Client(over.url) as client:
            before.end("the service starts")
            _wait_for_worker(over)
            before.end("its worker has imported torch")
            after.begin()
            job = client.jobs.create(family=family, seed=seed)
            after.end("POST")
            _followed(client, job.id, after, "training: ", "until a worker begins")
            trained = _succeeded(client, job.id)
            assert trained.evaluation is not None, "an evaluation follows by default"
            assert trained.optimizer is not None
            _followed(client, trained.evaluation, after, "evaluation: ", "until a worker begins")
            report = client.jobs.report(_succeeded(client, trained.evaluation).id)
            card = client.optimizers.get(trained.optimizer).card
            best = client.optimizers.get(f"{family}@best")
    return {
        "family": family,
        "before": before.found,
        "phases": after.found,
        "report": report,
        "card": card,
        "best": _named(best),
    }


def _named(best: Optimizer) -> str:
    """What `best` names, in words."""
    own = best.card.get("tuned")
    if own is None:
        return "what was learned"
    return f"tuned {own['baseline']} (learning rate {own['learning_rate']:.3g}, {own['schedule']})"


def _followed(client: gradsmith.Client, job: str, phases: Phases, prefix: str, name: str) -> None:
    """Follow a job to its end. What a log line announces lasts until the next one."""
    for event in client.jobs.stream(job):
        phases.end(prefix + name)
        if isinstance(event, StatusEvent) and event.status == "running":
            name = "begins"
        elif isinstance(event, MetricsEvent):
            name = "meta-steps and validations"
        elif isinstance(event, LogEvent) and prefix == "evaluation: ":
            name = _announced(event.message)


def _announced(message: str) -> str:
    """A phase of an evaluation; those of baselines together."""
    if message.startswith("tuning"):
        return "tuning the baselines"
    if message.startswith("measuring") and "learned" not in message:
        return "baselines on test tasks"
    return message.partition(" with ")[0]


def _succeeded(client: gradsmith.Client, job: str) -> Job:
    found = client.jobs.get(job)
    if found.status != "succeeded":
        raise RuntimeError(f"job {job} is {found.status}: {found.status_reason}")
    return found


def _wait_for_worker(over: Service) -> None:
    """Waits until a process of the worker has torch and the science in memory."""
    deadline = time.monotonic() + READY_SECONDS
    while not any(READY in log.read_bytes() for log in (over.settings.data_dir / "logs").glob("worker*.log")):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the worker is not ready after {READY_SECONDS:.0f} s")
        time.sleep(0.05)


def lines(found: dict[str, Any]) -> list[str]:
    """One family's table."""
    report, phases = found["report"], found["phases"]
    seconds, busy = (sum(getattr(phase, name) for phase in phases) for name in ("seconds", "busy_seconds"))
    best, asked = report.comparisons["best_baseline"], ASKED_SECONDS[found["family"]]
    outcome = ", ".join(
        f"{report.verdict[criterion]} at {best[criterion]['ratio_of_means']:.3f} of {best[criterion]['baseline']}'s "
        f"{name}"
        for criterion, name in (("final", "last five steps"), ("area", "area"))
    )
    cost = found["card"]["training"]["cost"]
    within = "within" if seconds <= asked else "NOT within"
    return [
        f"### {found['family']}",
        "",
        f"{seconds:.1f} s from POST, {within} the {asked} s asked for; {busy:.1f} s of computing. The optimizer "
        f"{outcome}; `{found['family']}@best` is {found['best']}. Training stopped after "
        f"{found['card']['training']['meta_steps']} meta-steps: "
        f"{cost['training']['seconds']:.1f} s of windows, {cost['selection']['seconds']:.1f} s of validations.",
        "",
        "| phase | seconds | of computing |",
        "|---|---|---|",
        *map(_row, phases),
        f"| **together** | **{seconds:.1f}** | **{busy:.1f}** |",
        *(_row(phase, "before the POST: ") for phase in found["before"]),
        "",
    ]


def _row(phase: Phase, prefix: str = "") -> str:
    return f"| {prefix}{phase.name} | {phase.seconds:.1f} | {phase.busy_seconds:.1f} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./run bench to_a_winner", description="Seconds from POST to an optimizer that beats every tuned baseline."
    )
    parser.add_argument(
        "--family", nargs="+", choices=list(ASKED_SECONDS), help="default: all; MNIST where its folder is given"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mnist", type=Path, help="a folder with MNIST's four files")
    parser.add_argument("--dry", action="store_true", help="print, but do not write RESULTS.md")
    options = parser.parse_args(arguments)
    families = options.family or [name for name in ASKED_SECONDS if name != "mnist-mlp" or options.mnist is not None]
    if "mnist-mlp" in families and options.mnist is None:
        parser.error("mnist-mlp needs its data: name the folder with MNIST's four files with --mnist FOLDER")
    if options.mnist is not None and not options.mnist.is_dir():
        parser.error(f"--mnist {options.mnist} is no folder; name the one with MNIST's four files")
    load = os.getloadavg()[0]
    text = [
        "## From POST to a winner",
        "",
        f"`./run bench to_a_winner --family {' '.join(families)} --seed {options.seed}`, {time.strftime('%Y-%m-%d')}, "
        f"{machine()}; load average before: {load:.1f}.",
        "",
        "A service as `./run serve` starts it, one worker, an empty data folder, one POST of a family's name. Seconds "
        "are the client's; those of computing are of all processes of the service.",
        "",
    ]
    for family in families:
        text += lines(measured(family, options.seed, options.mnist if family == "mnist-mlp" else None))
        print("\n".join(text), flush=True)
    if not options.dry:
        core_report.write(RESULTS, text[:-1], MARKS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
