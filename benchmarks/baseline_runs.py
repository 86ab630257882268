"""What the baselines of an evaluation cost: processor seconds of each sweep, and of one run on the test plan's tasks.

    ./run bench baseline_runs [--family NAME] [--data FOLDER] [--baselines NAME ...] [--alone]

One process with one thread, on validation tasks. --alone: one learning rate at a time, and tasks in batches of 16,384
coordinates, as it was before decision 0109. The command prints, and writes no file.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from models import halving, tuning
from models.baselines import TUNED, UNTUNED, usual_tuned
from models.families import FAMILIES
from models.measured import TUNING_TRAJECTORY
from models.memory import CHUNK_COORDINATES
from models.rollout import Contender, Sample, run
from models.spec import Split
from models.tasks.catalogue import open_for_tuning
from models.tuned import run_side_by_side

T = TypeVar("T")


def timed(work: Generator[Any, None, T]) -> tuple[T, float]:
    """What the work returns, and the processor seconds that it took."""
    started = time.process_time()
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value, time.process_time() - started


def one_by_one(settings: Sequence[Any], *where: Any, **how: Any) -> Generator[None, None, list[Any]]:
    """`run_side_by_side`, each setting by itself."""
    found = []
    for each in settings:
        found += yield from run_side_by_side([each], *where, **how)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./run bench baseline_runs", description="What baselines cost.")
    parser.add_argument("--family", choices=list(FAMILIES), default="digits-mlp")
    parser.add_argument("--data", type=Path, help="the service's data folder, for families whose data is there")
    parser.add_argument("--baselines", nargs="+", choices=[*TUNED, *UNTUNED], help="default: those of an evaluation")
    parser.add_argument("--alone", action="store_true", help="one learning rate at a time, in small batches")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    spec = FAMILIES[options.family]
    plan, family = spec.evaluation, open_for_tuning(spec.tasks, options.data)
    if options.alone:
        family.tasks_abreast = max(1, CHUNK_COORDINATES // family.coordinates_per_task)
        for module in (halving, tuning):
            setattr(module, run_side_by_side.__name__, one_by_one)
    search = tuning.tune if plan.search == "full" else halving.tune_by_halving
    tuning_tasks = Sample(Split.VALIDATION, 0, TUNING_TRAJECTORY, plan.tuning_tasks)
    as_many_as_tested = Sample(Split.VALIDATION, 0, TUNING_TRAJECTORY + 1, plan.test_tasks)
    [tasks, *_] = family.sample(Split.VALIDATION, seed=0, trajectory=0, tasks=1)
    tasks.losses_and_gradient(tasks.initial(), 0)  # loads the family's kernel, which is no part of a run
    total = 0.0
    print(f"{options.family}, {'alone' if options.alone else 'side by side'}: CPU seconds of a sweep, and of a run")
    for name in options.baselines or (*usual_tuned(spec.tasks), *UNTUNED):
        contender: Contender
        if name in TUNED:
            swept, sweep = timed(search(TUNED[name], family, tuning_tasks, plan.horizon, plan.schedules))
            contender, told = swept.best("final"), f"{sweep:6.2f}"
        else:
            contender, sweep, told = UNTUNED[name], 0.0, 6 * " "
        found, once = timed(run(contender, family, as_many_as_tested, plan.horizon))
        total += sweep + once
        print(f"{name:16s} {told} {once:6.2f}   final {float(found.final.mean()):.6g}", flush=True)
    print(f"together {total:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
