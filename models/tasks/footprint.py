"""The memory that a family's tasks take, against what its `costs()` say. Measured in a process of its own.

python -m models.tasks.footprint SPEC [DATA_FOLDER]     # SPEC as JSON; prints tasks, bytes and batches
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pydantic import TypeAdapter

from models.machine import peak_memory_bytes, usable_memory_bytes
from models.memory import WORKER_BYTES, batch_estimate_bytes
from models.task_spec import Tasks, TaskSpec

TOLERANCE = 0.2
MOST_TASKS = 65_536  # of any job
ENOUGH_BYTES = 512 * 2**20  # tasks that take so much say enough
SECONDS = 120.0


def compared(spec: TaskSpec, data_dir: Path | None = None) -> str | None:
    """What is wrong with `costs()`; None where a worker's memory is predicted within TOLERANCE, or cannot be measured.

    As many tasks are drawn as fill ENOUGH_BYTES: a family whose tasks are small takes little in any job, and may be
    wrong about it.
    """
    if peak_memory_bytes() is None:
        return None
    done = subprocess.run(
        [sys.executable, "-m", __name__, spec.model_dump_json(), str(data_dir or "")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    if done.returncode < 0:
        return f"the process that drew the tasks was killed by signal {-done.returncode}: they take far more than told"
    if done.returncode:
        return "the process that drew the tasks failed"
    tasks, measured, batches = (int(number) for number in done.stdout.split())
    predicted = _predicted(spec, tasks)
    margin = TOLERANCE * (WORKER_BYTES + measured)
    if abs(predicted - measured) <= margin or (batches > 1 and predicted > measured):
        return None  # costs() are those of the largest task, and where sizes differ the others take less
    return (
        f"{tasks:,} tasks and their data take {measured / 2**20:,.0f} MiB, and costs() add up to "
        f"{predicted / 2**20:,.0f} MiB; correct costs()"
    )


def _predicted(spec: TaskSpec, tasks: int) -> int:
    costs = spec.costs()
    return max(costs.loading_bytes, costs.resident_bytes + batch_estimate_bytes(spec, tasks))


def measure(spec: TaskSpec, data_dir: Path | None) -> tuple[int, int, int]:
    """How many tasks were drawn last, by how many bytes this process has grown at most since the family was opened, and
    how many batches there were.

    Each batch is twice as large as the one before, until it takes ENOUGH_BYTES or should take them.
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
        sizes = len(batches)
        for batch in batches:
            theta = batch.initial()
            losses, gradient = batch.losses_and_gradient(theta, 0)
        grown = (peak_memory_bytes() or 0) - before
        del batches, batch, theta, losses, gradient
        if max(grown, _predicted(spec, tasks)) >= enough or tasks == MOST_TASKS:
            return tasks, grown, sizes
        tasks *= 2


if __name__ == "__main__":
    given: TaskSpec = TypeAdapter(Tasks).validate_json(sys.argv[1])
    print(*measure(given, Path(sys.argv[2]) if sys.argv[2] else None))
