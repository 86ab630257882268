"""How many threads a job gets that asks for `auto`: measured when it starts, with what it will compute.

More threads than cores to be had make a shared machine many times slower, and small jobs gain nothing from a second
one; so nothing but a measurement on the spot can say.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from gradsmith.rules import Rules
from models.backends import backend_for
from models.spec import BackendName, MetaGradientMode, Products
from models.task_spec import Part

SECONDS = 0.25
COORDINATES = 4096  # enough for any number of threads to pay off that will
_STEPS = 2
_WORTH = 1.05  # more threads must be this much faster than fewer, or the cores are left to others


def calibrated(
    rule: Rules,
    dtype: torch.dtype,
    device: torch.device,
    *,
    wanted: BackendName = "auto",
    coordinates: int,
    most: int,
    seconds: float = SECONDS,
    parts: Sequence[Part] = (),
    mode: MetaGradientMode = "detached",
    products: Products = "float32",
) -> int:
    """The smallest number of threads, of 1, 2, 4 .. `most`, that is within 5 % of the fastest for windows of the rule
    on `coordinates` coordinates. Takes about `seconds`; leaves torch with the number that it returns.

    parts, mode, products: as for `backend_for`
    Raises BackendUnavailable.
    """
    counts = [2**power for power in range(most.bit_length()) if 2**power < most] + [most]
    if len(counts) == 1 or device.type != "cpu":
        torch.set_num_threads(1)
        return 1
    backends = {
        count: backend_for(rule, dtype, device, count, wanted=wanted, parts=parts, mode=mode, products=products)
        for count in counts
    }
    task = backends[1].task_size or 1
    width = max(task, min(coordinates, COORDINATES) // task * task)  # whole tasks, where the rule looks at those
    memory = backends[1].initial_memory(width, 1)
    rows = torch.ones(_STEPS, width, dtype=dtype)
    shortest = dict.fromkeys(counts, float("inf"))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or float("inf") in shortest.values():
        for count, backend in backends.items():  # interleaved, so that a passing disturbance meets them all
            torch.set_num_threads(count)
            start = time.perf_counter()
            backend.window_gradient(memory, rows, rows)
            shortest[count] = min(shortest[count], time.perf_counter() - start)
    fastest = min(shortest.values())
    chosen: int = min(count for count in counts if shortest[count] <= _WORTH * fastest)
    torch.set_num_threads(chosen)
    return chosen
