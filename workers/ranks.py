"""A job in several processes, seen from the one that holds it: the same stream of events as `meta_train`'s.

    holder (workers.child: lease, database, streams)
      torchrun
        rank 0 .. n-1 (workers.rank), each connected with the holder by a socket of its own

The ranks hold no lease and write nothing: rank 0 sends its events to the holder, which does with them what it does with
those of a job of one process. So a cancel, a preemption, a lost lease need nothing new: the generator is closed, and
that kills torchrun and every rank.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from app.host.tether import tethered
from models.errors import RankLost
from models.meta_train import (
    Event,
    MetaStep,
    Restarted,
    RolledBack,
    StartEnded,
    StoppedEarly,
    TrainingResult,
    TrajectoryEnd,
    Validated,
    Working,
)
from models.spec import MetaTrainSpec
from models.training import checkpoint
from workers.rank import ADDRESS

START_SECONDS = 30.0  # and one for each rank: torchrun imports torch before it starts anything
LAST_WORDS_SECONDS = 30.0  # after the first rank that came to its end
CAUSE_SECONDS = 1.0  # after the first sign of trouble: what it follows from may be told a little later
POLL_SECONDS = 0.2
LOOPBACK = "127.0.0.1"
SECRETS = ("DATABASE_URL", "REDIS_URL")


@dataclass(frozen=True)
class _Gone:
    """A rank's connection ended before its last word."""


def train_in_ranks(
    spec: MetaTrainSpec, *, data_dir: Path | None = None, resume: bytes | None = None, threads: int = 1
) -> Generator[Event, None, None]:
    """`meta_train` in `spec.resources.processes` processes of `threads` threads. Close it to end them all at once.

    TrajectoryEnds come at most every quarter of a second. To be called in the main thread, since the kernel's death
    signal watches the thread that starts a process.

    Raises what meta_train raises, on whatever rank, and RankLost when a rank died, hangs or cannot be reached.
    """
    if resume is not None:
        checkpoint.loads(resume, spec, torch.device("cpu"))  # refused here, before anything is started
    yield Working(0)  # starting takes seconds
    with _Crew(spec.resources.processes, threads) as crew:
        order = {"spec": spec.model_dump_json(), "data_dir": data_dir and str(data_dir), "resume": resume}
        crew.start({**order, "threads": threads})
        yield from crew.events()


@dataclass
class _Crew:
    """torchrun, its ranks, and the threads that read what they say."""

    size: int
    threads: int
    _folder: tempfile.TemporaryDirectory[str] = field(init=False)
    _server: socket.socket = field(init=False)
    _torchrun: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _heard: queue.SimpleQueue[tuple[int, Any]] = field(default_factory=queue.SimpleQueue, init=False)
    _pids: dict[int, int] = field(default_factory=dict, init=False)  # of the ranks that are connected
    _readers: list[threading.Thread] = field(default_factory=list, init=False)
    _closing: bool = field(default=False, init=False)

    def __enter__(self) -> _Crew:
        self._folder = tempfile.TemporaryDirectory(prefix="gradsmith-ranks-", ignore_cleanup_errors=True)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(self._address)
        self._server.listen(self.size)
        self._server.settimeout(POLL_SECONDS)  # closing a socket wakes nobody who waits for it
        return self

    @property
    def _address(self) -> str:
        return str(Path(self._folder.name) / "socket")  # the folder is ours alone: nobody else can connect

    def start(self, order: Mapping[str, Any]) -> None:
        logs = str(Path(self._folder.name) / "torchrun")
        command = [sys.executable, "-P", "-m", "torch.distributed.run", "--max-restarts", "0", "--log-dir", logs]
        # Not --standalone: that rendezvous unpickles what anybody who reaches its port has put there.
        command += ["--rdzv-backend", "static", "--master-addr", LOOPBACK, "--master-port", str(_free_port())]
        command += ["--nnodes", "1", "--node-rank", "0", "--nproc-per-node", str(self.size)]
        self._torchrun = subprocess.Popen(
            tethered([*command, "-m", "workers.rank"]),
            env=self._environment(),
            stdin=subprocess.DEVNULL,
        )
        full = {**order, "torchrun": self._torchrun.pid}  # its own id, which it keeps across the tether's exec
        self._listen(self._accept, full)

    def _environment(self) -> dict[str, str]:
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        return {
            "OMP_NUM_THREADS": str(self.threads),
            "GLOO_SOCKET_IFNAME": loopback,  # one machine: no name is looked up, and nobody outside is listened to
            "NCCL_SOCKET_IFNAME": loopback,
            **{name: value for name, value in os.environ.items() if name not in SECRETS},
            "PYTHONSAFEPATH": "1",
            ADDRESS: self._address,
        }

    # --- what the ranks say --------------------------------------------------------------------------------------

    def _listen(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, name="ranks", daemon=True)
        self._readers.append(thread)
        thread.start()

    def _accept(self, order: Mapping[str, Any]) -> None:
        accepted = 0
        while accepted < self.size and not self._closing:
            with contextlib.suppress(TimeoutError):
                connected, _ = self._server.accept()
                connected.setblocking(True)
                self._listen(self._read, Connection(connected.detach()), order)
                accepted += 1
        self._folder.cleanup()  # nobody needs it any more, so that a SIGKILL leaves nothing of it

    def _read(self, connection: Connection, order: Mapping[str, Any]) -> None:
        with connection:
            rank, pid = -1, 0
            try:
                rank, pid = connection.recv()
                self._pids[rank] = pid
                connection.send(order)
                while True:
                    self._heard.put((rank, connection.recv()))
            except (EOFError, OSError):
                self._pids.pop(rank, None)
                self._heard.put((rank, _Gone()))

    def events(self) -> Generator[Event, None, None]:
        started_by, ended_by = time.monotonic() + START_SECONDS + self.size, math.inf
        step = 0
        while True:
            try:
                rank, said = self._heard.get(timeout=POLL_SECONDS)
            except queue.Empty:
                self._refuse_silence(started_by, ended_by)
                yield Working(step)
                continue
            match said:
                case MetaStep() | Validated() | Working() | Restarted() | RolledBack() | StartEnded() | StoppedEarly():
                    step = said.step
                    yield said
                case (int(step), bytes(content)):
                    yield TrajectoryEnd(step, lambda content=content: content)  # type: ignore[misc]
                case TrainingResult():
                    yield said
                    return
                case None:  # another rank has come to its end; what rank 0 found is on its way
                    ended_by = time.monotonic() + LAST_WORDS_SECONDS
                case _Gone() | Exception():
                    raise self._cause(rank, said)
                case _:
                    raise AssertionError(f"rank {rank} said {said!r}")

    def _refuse_silence(self, started_by: float, ended_by: float) -> None:
        assert self._torchrun is not None
        now, connected = time.monotonic(), len(self._pids)
        if (status := self._torchrun.poll()) is not None:
            raise RankLost(f"torchrun, which started the {self.size} ranks, ended with status {status}")
        if now > started_by and connected < self.size:
            raise RankLost(f"{self.size - connected} of {self.size} ranks did not start in time")
        if now > ended_by:
            raise RankLost(f"rank 0 of {self.size} did not end, though another did")

    def _cause(self, rank: int, first: _Gone | Exception) -> Exception:
        """What the trouble follows from: a rank's own error comes before one that died, and that before those who
        waited for it in vain."""
        died: list[RankLost] = []
        waited: list[RankLost] = []
        deadline = time.monotonic() + CAUSE_SECONDS
        said: Any = first
        while True:
            match said:
                case _Gone():
                    died.append(RankLost(f"rank {rank} of {self.size} died"))
                case RankLost():
                    waited.append(said)
                case Exception():
                    return said
            try:
                rank, said = self._heard.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return (died + waited)[0]

    # --- the end -------------------------------------------------------------------------------------------------

    def __exit__(self, *_: object) -> None:
        """Leaves no process. SIGKILL: there is nothing that a rank could still save."""
        self._closing = True
        if self._torchrun is not None:
            self._torchrun.kill()
            for pid in list(self._pids.values()):  # the kernel does that too, where it has a death signal
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._torchrun.wait()
        for reader in self._readers:
            reader.join(timeout=5.0)
        self._server.close()
        self._folder.cleanup()


def _free_port() -> int:
    """One that nobody has now. Should somebody take it before torchrun does, the attempt ends and another is made."""
    with socket.create_server((LOOPBACK, 0)) as found:
        return int(found.getsockname()[1])
