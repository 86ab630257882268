"""The memory that a family's tasks take, against what its `costs()` say. Measured in a process of its own.

python -m models.tasks.footprint SPEC [DATA_FOLDER]     # SPEC as JSON; prints what `measure` gives
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from models.machine import peak_memory_bytes, usable_memory_bytes
from models.memory import WORKER_BYTES, batch_estimate_bytes
from models.task_spec import Tasks, TaskSpec

TOLERANCE = 0.2
MOST_TASKS = 65_536  # of any job
ENOUGH_BYTES = 256 * 2**20  # tasks that take so much say enough
SECONDS = 600.0


class Measured(NamedTuple):
    """What `measure` finds."""

    tasks: int
    """How many were drawn last."""
    largest: int
    """How many of them are sure to be of the largest size."""
    grown: int
    """Bytes by which the process has grown at most since the family was opened."""


class DrawingFailed(Exception):
    """The process that drew the tasks ended with an exception; `str(error)` is what it wrote, with the traceback."""


def compared(spec: TaskSpec, data_dir: Path | None = None) -> str | None:
    """What is wrong with `costs()`; None where a worker's memory is predicted within TOLERANCE, or cannot be measured.

    As many tasks are drawn as fill ENOUGH_BYTES: a family whose tasks are small takes little in any job, and may be
    wrong about it. costs() are those of the largest task. Where sizes differ, all tasks take no more than as many of
    the largest, and no less than the largest among them do alone.

    Raises DrawingFailed.
    """
    if peak_memory_bytes() is None:
        return None
    done = subprocess.run(
        [sys.executable, "-m", __name__, spec.model_dump_json(), str(data_dir or "")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    if done.returncode < 0:
        return f"the process that drew the tasks was killed by signal {-done.returncode}: they take far more than told"
    if done.returncode:
        raise DrawingFailed(done.stderr)
    return judged(spec, Measured(*map(int, done.stdout.split())))


def judged(spec: TaskSpec, measured: Measured) -> str | None:
    """What is wrong with `costs()` where tasks took so much; None where nothing is."""
    tasks, largest, grown = measured
    most, least = _predicted(spec, tasks), _predicted(spec, largest)
    margin = TOLERANCE * (WORKER_BYTES + grown)
    if least - margin <= grown <= most + margin:
        return None
    told = f"{most / 2**20:,.0f} MiB"
    if grown < least and largest < tasks:
        told = f"{least / 2**20:,.0f} MiB for the {largest:,} largest of them alone"
    return (
        f"{tasks:,} tasks and their data take {grown / 2**20:,.0f} MiB, and costs() add up to {told}; correct costs()"
    )


def _predicted(spec: TaskSpec, tasks: int) -> int:
    costs = spec.costs()
    return max(costs.loading_bytes, costs.resident_bytes + batch_estimate_bytes(spec, tasks))


def measure(spec: TaskSpec, data_dir: Path | None) -> Measured:
    """Draw tasks and let them compute, in this process.

    Each draw is twice as large as the one before, until it takes ENOUGH_BYTES or its largest tasks should take them.
    The smallest of the batches whose tasks have the most coordinates counts: the others may hold fewer data.
    """
    import torch

    from models.spec import Split
    from models.tasks.catalogue import open_for_training

    torch.set_num_threads(1)
    torch.bmm(torch.ones(1, 2, 2), torch.ones(1, 2, 2)).log_softmax(dim=2).sigmoid()  # loads what any family needs
    enough = min(ENOUGH_BYTES, usable_memory_bytes() // 8)
    before, tasks, grown = peak_memory_bytes() or 0, 4, 0
    family = open_for_training(spec, data_dir)
    while True:
        batches = family.sample(Split.TRAIN, seed=0, trajectory=0, tasks=tasks)
        whole = [batch.tasks for batch in batches if batch.coordinates_per_task == spec.coordinates_per_task]
        largest = min(whole, default=0)
        for batch in batches:
            theta = batch.initial()
            losses, gradient = batch.losses_and_gradient(theta, 0)
        grown = (peak_memory_bytes() or 0) - before
        del batches, batch, theta, losses, gradient
        if max(grown, _predicted(spec, largest)) >= enough or tasks == MOST_TASKS:
            return Measured(tasks, largest, grown)
        tasks *= 2


if __name__ == "__main__":
    given: TaskSpec = TypeAdapter(Tasks).validate_json(sys.argv[1])
    print(*measure(given, Path(sys.argv[2]) if sys.argv[2] else None))
