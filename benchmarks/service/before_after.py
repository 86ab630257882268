"""`python -m benchmarks.service.before_after CHECKOUT [ROUNDS]`: POST /jobs here and in another checkout, in turn.

Both servers are over one Postgres, with two API processes; 16 clients, three seconds a round. Beside the rate it tells
the processor time of a POST, of the server's processes and its Postgres backends together: other load on the machine
changes that less.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

from benchmarks.service.load import Load, Request, run
from benchmarks.service.posts import CLIENTS, new_job
from benchmarks.service.stores import postgres
from workshop import served

SECONDS = 3.0
PLAIN, KEYED = "POST /jobs", "POST /jobs, Idempotency-Key"
MOST_RATE = 1000  # posts a second for which there are Idempotency-Keys enough


def processor_seconds(database: str) -> float:
    """What the processes whose DATABASE_URL names this database, and Postgres' backends for it, have used so far."""
    ticks = 0
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            backend = f" {database} " in (process / "cmdline").read_text(errors="replace").partition("postgres:")[2]
            ours = f"/{database}" in (process / "environ").read_text(errors="replace")
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended, or is somebody else's
            continue
        if backend or ours:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def requests(what: str) -> list[Request]:
    job = new_job()
    if what == PLAIN:
        return [job]
    count = int(MOST_RATE * (SECONDS + 1))
    return [Request(job.method, job.path, {"Idempotency-Key": str(uuid4())}, job.body) for _ in range(count)]


def main(arguments: list[str]) -> int:
    trees = {"before": Path(arguments[0]).resolve(), "after": served.ROOT}
    rounds = int(arguments[1]) if len(arguments) > 1 else 6
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    served.START_SECONDS = 240.0
    with ExitStack() as stack:
        server = stack.enter_context(postgres())
        urls = {}
        for side, tree in trees.items():
            url = server.url(f"ab_{side}", "")
            urls[side] = stack.enter_context(served.service(url, api_processes=2, checkout=tree)).url
        for number in range(rounds):
            for what in (PLAIN, KEYED):
                for side in sorted(urls, reverse=bool(number % 2)):
                    before = processor_seconds(f"ab_{side}")
                    measured = run(Load(urls[side], requests(what), CLIENTS, SECONDS))
                    used = processor_seconds(f"ab_{side}") - before
                    rate = measured.summary([202])["rate"]
                    found[what, side].append((rate, 1000 * used / sum(measured.statuses.values())))
                    print(f"round {number + 1} of {rounds}, {what}, {side}: {rate:.0f} /s", flush=True)
    print("\n|  | /s | processor time of a POST, ms |\n|---|---:|---:|")
    for (what, side), each in found.items():
        columns = [
            f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"
            for values, digits in zip(zip(*each, strict=True), (0, 1), strict=True)
        ]
        print(f"| {what}, {side} | {' | '.join(columns)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
