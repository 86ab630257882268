"""A job's stream over connections that are cut again and again: is anything lost, does anything come twice?

    ./run bench reconnects [--cuts 100] [--meta-steps 4000] [--seed 0] [--url URL]

Starts the service (or takes the one at --url), trains on quadratics, and follows the job while it runs, by Client and
by AsyncClient, each through a proxy of its own that cuts every connection after a random number of bytes: in the
answer's headers, in an event, or before anything was said. The events of each are compared with those of a stream that
was not cut, and the points with the curve. Prints a line for each client; ends with status 1 where anything was lost or
came twice, or where there were fewer cuts than asked for.
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
    """What one client was told. error: why it gave up"""

    name: str
    events: list[Event] = field(default_factory=list)
    error: str = ""

    @property
    def ids(self) -> list[str]:
        """Ids in the order in which they came; the opening status has none."""
        return [event.id for event in self.events if event.id is not None]

    @property
    def steps(self) -> list[int]:
        """Meta-steps of the points."""
        return [step for event in self.events if isinstance(event, MetricsEvent) for step in event.step]


def cuts(seed: int) -> Callable[[], int]:
    """Bytes that connections live for: a fifth of them not beyond the headers, a tenth as long as the longest event."""
    drawn = random.Random(seed)

    def one() -> int:
        kind = drawn.random()
        return drawn.randint(0, 250) if kind < 0.2 else drawn.randint(400, 2000 if kind < 0.9 else 12_000)

    return one


def follow(proxy: CuttingProxy, job: str, into: Followed) -> None:
    """By the client that blocks."""
    try:
        with gradsmith.Client(proxy.url) as client:
            into.events.extend(client.jobs.stream(job))
    except gradsmith.GradsmithError as error:
        into.error = str(error)


def follow_async(proxy: CuttingProxy, job: str, into: Followed) -> None:
    """By the client for asyncio."""

    async def follow() -> None:
        async with gradsmith.AsyncClient(proxy.url) as client:
            async for event in client.jobs.stream(job):
                into.events.append(event)

    try:
        asyncio.run(follow())
    except gradsmith.GradsmithError as error:
        into.error = str(error)


def verdict(followed: Followed, proxy: CuttingProxy, whole: Followed, wanted: int) -> bool:
    """Prints what came of one client; whether it is right."""
    lost = len(set(whole.ids) - set(followed.ids))
    twice = len(followed.ids) - len(set(followed.ids))
    right = not followed.error and followed.ids == whole.ids and followed.steps == whole.steps
    enough = proxy.connections > wanted
    print(
        f"{followed.name:<12} {proxy.connections - 1:>4} reconnects, {len(followed.ids)} events, "
        f"{len(followed.steps)} points: {lost} lost, {twice} twice, {'in order' if right else 'WRONG'}"
        f"{followed.error and f' ({followed.error})'}{'' if enough else f'; fewer than {wanted}: more --meta-steps'}"
    )
    return right and enough


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
    parser.add_argument("--meta-steps", type=int, default=4000)
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
                threading.Thread(target=follow, args=(first, job.id, blocking), daemon=True),
                threading.Thread(target=follow_async, args=(second, job.id, awaited), daemon=True),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(LIMIT_SECONDS)
                if thread.is_alive():
                    print(f"the job did not end within {LIMIT_SECONDS:.0f} s", file=sys.stderr)
                    return 1
            whole = Followed("uncut", list(client.jobs.stream(job)))
            curve = client.jobs.curve(job)
            complete = whole.steps == list(curve.step)
            print(f"{'not cut':<12}    0 reconnects, {len(whole.ids)} events, {len(whole.steps)} points"
                  f"{'' if complete else ', WRONG: the curve has others'}")  # fmt: skip
            right = [verdict(blocking, first, whole, given.cuts), verdict(awaited, second, whole, given.cuts)]
    return 0 if complete and all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
