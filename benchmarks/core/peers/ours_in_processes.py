"""Ours in as many processes of one thread as the others have threads: data parallel, as a job with
`resources.processes` runs (models.parallel). Each rank owns whole tasks; needs as many tasks as ranks.

The worker is rank 0. The other ranks are children of it, which do what it is asked for.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from multiprocessing.connection import Connection

from benchmarks.core.peers.base import Weights
from benchmarks.core.peers.ours import Ours
from benchmarks.core.problem import Loaded
from models.parallel import join

END_SECONDS = 5.0


class OursInProcesses:
    """Rank 0, and the pipes to the others. A rank that dies ends the worker with RankLost."""

    def __init__(self, loaded: Loaded, weights: Weights, threads: int) -> None:
        cpus = sorted(os.sched_getaffinity(0))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        spawn = multiprocessing.get_context("spawn")
        self._others: list[Connection] = []
        for rank in range(1, threads):
            ours, theirs = spawn.Pipe()
            place = (rank, threads, port, cpus[rank])
            spawn.Process(target=_serve, args=(theirs, place, loaded, weights), daemon=True).start()
            theirs.close()
            self._others.append(ours)
        self._ours = _joined((0, threads, port, cpus[0]), loaded, weights)
        self.counted_losses = self._ours.counted_losses
        about = self._ours.about
        settings = f"{threads} processes of one thread, gloo; {about['settings']}"
        self.about = about | {"name": f"{about['name']}, {threads} processes", "settings": settings}
        self.processes = threads

    def begin(self) -> None:
        self._all("begin")
        self._ours.begin()

    def gradient(self) -> Weights:
        self._all("gradient")
        return self._ours.gradient()

    def run(self, meta_steps: int) -> None:
        self._all("run", meta_steps)
        self._ours.run(meta_steps)  # no rank is ahead of the others: each meta-step ends with their sum

    def _all(self, *what: str | int) -> None:
        for other in self._others:
            other.send(what)


make = OursInProcesses


def _joined(place: tuple[int, int, int, int], loaded: Loaded, weights: Weights) -> Ours:
    rank, size, port, cpu = place
    os.sched_setaffinity(0, {cpu})
    found = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in found.items()}, MASTER_ADDR="127.0.0.1")
    return Ours(loaded, weights, 1, team=join("cpu"))


def _serve(requests: Connection, place: tuple[int, int, int, int], loaded: Loaded, weights: Weights) -> None:
    ours = _joined(place, loaded, weights)
    while True:
        try:
            what, *arguments = requests.recv()
        except EOFError:  # rank 0 has ended
            return
        getattr(ours, what)(*arguments)
