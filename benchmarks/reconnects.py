"""A job's stream over connections that are cut again and again: is anything lost, does anything come twice?

    ./run bench reconnects [--cuts 100] [--meta-steps 1000] [--seed 0] [--url URL]

Starts the service (or takes the one at --url), trains on quadratics, and follows the job while it runs, by Client and
by AsyncClient, each through a proxy of its own that cuts every connection after a random number of bytes: in the
answer's headers, in an event, or before anything was said. Where the job ends before there were enough cuts, its stream
is read again from the beginning. All that came is compared with a stream that was not cut, and its points with the
curve. Prints a line for each client; ends with status 1 where anything was lost or came twice.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import gradsmith
from gradsmith.events import Event, MetricsEvent
from workshop.cutting import CuttingProxy, cutting_proxy
from workshop.served import service

LIMIT_SECONDS = 1800.0


@dataclass
class Followed:
    """The events that one client got, for each time that it followed the job. error: why it gave up"""

    name: str
    passes: list[list[Event]] = field(default_factory=list)
    error: str = ""

    def ids(self, number: int) -> list[str]:
        """Ids in the order in which they came; the opening status has none."""
        return [event.id for event in self.passes[number] if event.id is not None]

    def steps(self, number: int) -> list[int]:
        """Meta-steps of the points."""
        return [step for event in self.passes[number] if isinstance(event, MetricsEvent) for step in event.step]


def cuts(seed: int) -> Callable[[], int]:
    """Bytes that connections live for: a fifth of them not beyond the headers, a tenth as long as the longest event."""
    drawn = random.Random(seed)

    def one() -> int:
        kind = drawn.random()
        return drawn.randint(0, 250) if kind < 0.2 else drawn.randint(400, 2000 if kind < 0.9 else 12_000)

    return one


def follow(proxy: CuttingProxy, job: str, into: Followed, wanted: int) -> None:
    """The client that blocks follows, until there were so many cuts."""
    try:
        with gradsmith.Client(proxy.url) as client:
            while not into.passes or proxy.connections <= wanted + len(into.passes):
                into.passes.append(list(client.jobs.stream(job)))
    except gradsmith.GradsmithError as error:
        into.error = str(error)


def follow_async(proxy: CuttingProxy, job: str, into: Followed, wanted: int) -> None:
    """The client for asyncio follows, until there were so many cuts."""

    async def follow() -> None:
        async with gradsmith.AsyncClient(proxy.url) as client:
            while not into.passes or proxy.connections <= wanted + len(into.passes):
                into.passes.append([event async for event in client.jobs.stream(job)])

    try:
        asyncio.run(follow())
    except gradsmith.GradsmithError as error:
        into.error = str(error)


def verdict(followed: Followed, proxy: CuttingProxy, whole: Followed) -> bool:
    """Prints what came of one client; whether it is right."""
    expected, passes = whole.ids(0), range(len(followed.passes))
    lost = sum(len(set(expected) - set(followed.ids(number))) for number in passes)
    twice = sum(len(followed.ids(number)) - len(set(followed.ids(number))) for number in passes)
    same = all((followed.ids(number), followed.steps(number)) == (expected, whole.steps(0)) for number in passes)
    right = same and not followed.error and len(passes) > 0
    print(
        f"{followed.name:<12} {proxy.connections - len(passes):>4} reconnects, {len(passes)} x {len(expected)} events: "
        f"{lost} lost, {twice} twice, {'in order' if right else 'WRONG'}{followed.error and f' ({followed.error})'}"
    )
    return right


@contextmanager
def address(given: str | None) -> Iterator[str]:
    """Where the service is: at `given`, or one that is started for this."""
    if given is not None:
        yield given
        return
    with service(None, workers=1) as running:
        yield running.url


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./run bench reconnects", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--meta-steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--url", help="a service that runs; default: one of its own")
    given = parser.parse_args(arguments)
    with address(given.url) as url, gradsmith.Client(url) as client:
        recipe = {"meta_steps": given.meta_steps, "tasks": 4, "validation_tasks": 4, "patience": 1000}
        job = client.jobs.create(family="quadratic", seed=1, recipe=recipe, evaluate=False)
        with (
            cutting_proxy(url, cuts(given.seed)) as first,
            cutting_proxy(url, cuts(given.seed + 1)) as second,
        ):
            blocking, awaited = Followed("Client"), Followed("AsyncClient")
            threads = [
                threading.Thread(target=follow, args=(first, job.id, blocking, given.cuts), daemon=True),
                threading.Thread(target=follow_async, args=(second, job.id, awaited, given.cuts), daemon=True),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(LIMIT_SECONDS)
                if thread.is_alive():
                    print(f"the job did not end within {LIMIT_SECONDS:.0f} s", file=sys.stderr)
                    return 1
            whole = Followed("uncut", [list(client.jobs.stream(job))])
            curve = client.jobs.curve(job)
            complete = whole.steps(0) == list(curve.step)
            print(f"{'not cut':<12}    0 reconnects, {len(whole.ids(0))} events, {len(whole.steps(0))} points"
                  f"{'' if complete else ', WRONG: the curve has others'}")  # fmt: skip
            right = [verdict(blocking, first, whole), verdict(awaited, second, whole)]
    return 0 if complete and all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
