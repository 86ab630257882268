"""The command line of `./run reproduce`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.core.environment import ROOT
from benchmarks.core.machine import described
from benchmarks.reproduce import page, pictures, protocol, results
from benchmarks.reproduce.budgets import BUDGETS, Budget, known
from benchmarks.reproduce.desk import Desk, desk
from benchmarks.reproduce.estimate import estimate
from benchmarks.reproduce.experiments import EXPERIMENTS, Experiment
from models.errors import ModelsError
from models.families import FAMILIES
from models.tasks.data import known as known_datasets

STARTED = time.monotonic()


def _stop(signum: int, _frame: object) -> None:
    raise SystemExit(128 + signum)  # on the way out the service is stopped, and its jobs write checkpoints


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.draw:
        page.write()
        return 0
    signal.signal(signal.SIGTERM, _stop)
    usual, here = BUDGETS[options.budget], known()
    failures = 0
    ready: list[tuple[Experiment, Budget]] = []
    for name in options.experiments or [each.name for each in EXPERIMENTS]:
        if name not in here:
            absent = sorted(set(_of(name).families) - FAMILIES.keys())
            tell(f"{name}: not run. There is no family {', '.join(absent)} here.")
        elif (budget := _on(options.dataset, usual, here[name])) is None:
            pass
        elif (why := missing_data(budget.datasets(here[name]), options.data)) is not None:
            tell(f"{name}: not run. {why}")
        else:
            ready.append((here[name], budget))
            continue
        failures += 1
    if options.estimate:
        for experiment, budget in ready:
            tell(_estimated(experiment, budget, options))
    elif ready:
        gpu = usual.resources.get("device") == "gpu"
        with desk(options.data, options.workers, tell, described()["commit"], gpu=gpu) as ours:
            ours.cancel_all_but(_asked_for(usual, ready, options.seeds))
            for experiment, budget in ready:
                count = options.seeds or budget.seeds_of(experiment)
                run(experiment, budget, range(count), ours, options.data)
    return 1 if failures else 0


def _estimated(experiment: Experiment, budget: Budget, options: argparse.Namespace) -> str:
    seeds = options.seeds or budget.seeds_of(experiment)
    found = estimate(experiment, budget, seeds, options.data)
    return (
        f"{experiment.name}, {budget.name}, seeds: {seeds}: {found.training / 60:.1f} core-minutes of training and "
        f"{found.measuring / 60:.1f} of measuring; with {options.workers} workers about "
        f"{found.minutes(options.workers):.0f} minutes"
    )


def run(
    experiment: Experiment, budget: Budget, seeds: Sequence[int], ours: Desk, data: Path,
    folder: Path = results.FOLDER, document: Path = page.FOLDER,
) -> None:  # fmt: skip
    """Train, choose, open the test, and measure panel by panel. What there is is written after each of them."""
    began = time.monotonic()
    trained = protocol.train(experiment, budget, seeds, ours)
    opening = protocol.opened(experiment, budget, trained, data)
    if opening.chosen is not None:
        ours.tell(f"{experiment.name}: by validation, ours is {opening.chosen}; the test is opened")
    command = command_of(experiment, budget, len(seeds))
    document.mkdir(parents=True, exist_ok=True)
    measured: list[protocol.Measured] = []
    for place, panel in enumerate(experiment.panels):
        coming = experiment.panels[place : place + ours.workers]
        protocol.begin(experiment, coming, budget, trained, opening, ours)
        measured += protocol.measure(experiment, panel, budget, trained, opening, ours)
        results.write(results.collected(experiment, budget, seeds, trained, opening, measured, command), folder)
        pictures.draw(measured, opening, document)
        page.write(folder, document)
        ours.tell(f"{experiment.name}: {panel.name} is on the page, {document / 'README.md'}")
    ours.tell(f"{experiment.name}: done after {time.monotonic() - began:.0f} s")


def _on(dataset: str | None, budget: Budget, experiment: Experiment) -> Budget | None:
    """The budget on this data set, where one is named; None, after a line that says so, where it does not fit."""
    try:
        return budget if dataset is None else budget.on(dataset, experiment)
    except ValueError as error:
        tell(f"{experiment.name}: not run. {error}")
        return None


def command_of(experiment: Experiment, budget: Budget, seeds: int) -> str:
    """What runs it."""
    command = f"./run reproduce {experiment.name} --budget {budget.name} --seeds {seeds}"
    tasks = budget.tasks.get(experiment.name)
    if tasks is None or tasks == BUDGETS[budget.name].tasks.get(experiment.name):
        return command
    return f"{command} --dataset {tasks['dataset']}"


def _asked_for(
    usual: Budget, ready: Sequence[tuple[Experiment, Budget]], seeds: int | None
) -> Iterator[dict[str, Any]]:
    """Every training of every experiment here, for as many seeds as a call may have asked for."""
    for experiment, budget in (*((each, usual) for each in known().values()), *ready):
        for training in experiment.trainings:
            for seed in range(max(seeds or 0, budget.seeds_of(experiment))):
                yield budget.training(experiment, training, seed)


def missing_data(datasets: Sequence[str], data: Path) -> str | None:
    """Why one of them cannot be read from this data folder, with the command that brings it; None where all can."""
    sets = known_datasets()
    for name in datasets:
        try:
            sets[name].check(data)
        except ModelsError as error:
            return str(error)
    return None


def tell(line: str) -> None:
    print(f"{time.monotonic() - STARTED:7.0f} s  {line}", flush=True)


def _of(name: str) -> Experiment:
    return next(each for each in EXPERIMENTS if each.name == name)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [each.name for each in EXPERIMENTS]
    parser = argparse.ArgumentParser(
        prog="./run reproduce",
        description="Runs the experiments of Andrychowicz et al. 2016 through the service and writes docs/paper/.",
    )
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=f"{', '.join(names)} (default: all)")
    parser.add_argument("--budget", choices=list(BUDGETS), default="short", help="default: short")
    parser.add_argument("--seeds", type=int, metavar="N", help="meta-seeds of every variant (default: the budget's)")
    parser.add_argument(
        "--dataset", metavar="NAME", help="another data set for them all, such as cifar10-jpeg in place of cifar10"
    )
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="jobs that train at once")
    parser.add_argument(
        "--data", type=Path, default=ROOT / "var" / "reproduce", help="data folder of its service (var/reproduce)"
    )
    parser.add_argument("--estimate", action="store_true", help="run nothing: time a piece of each job")
    parser.add_argument("--draw", action="store_true", help="run nothing: draw docs/paper/ anew from its results")
    options = parser.parse_args(arguments)
    for name in options.experiments:  # argparse refuses an empty list where there are choices
        if name not in names:
            parser.error(f"there is no experiment {name!r}; there are {', '.join(names)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
