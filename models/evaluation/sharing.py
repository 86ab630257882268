"""Work of an evaluation that is shared with forked processes, so that a second core has something to do.

Runs of baselines are many small operations of torch, for which threads within an operation gain nothing. Each process
takes the next piece that nobody has; what a piece gives does not depend on who does it. A fork begins at once, with
torch, the data and the kernels in memory. It has one thread, touches no connection of its parent's, and ends without
the interpreter's farewell. A helper that dies is made up for.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from types import TracebackType

import torch

from models.measured import PROGRESS_INTERVAL_SECONDS, MeasuringProgress, Runs

MOST_PIECES = 255  # a piece's number is one byte


@dataclass(frozen=True)
class Piece:
    """message: what is told meanwhile; work: yields now and then, something else than None for each run that is done,
    and returns what was found"""

    message: str
    work: Callable[[], Generator[object | None, None, bytes]]


MOST_HELPERS = 3
"""More have little to do: the longest sweep is a fifth of all work."""


def helpers_for(cores: int, device: torch.device) -> int:
    """How many processes may help one that has so many cores."""
    return min(cores - 1, MOST_HELPERS) if device.type == "cpu" and sys.platform == "linux" else 0


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """What is computed within has the bits of one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def shared(pieces: Sequence[Piece], runs: Runs, helpers: int) -> Generator[MeasuringProgress, None, list[bytes]]:
    """What the pieces give, in their order. They are begun in this order too: the longest should come first.

    helpers: processes that are forked for this. Closing the generator ends them.
    Raises what a piece raises, whoever does it.
    """
    found: dict[int, bytes] = {}
    with _Crew(pieces, min(helpers, len(pieces) - 1)) as crew:
        while (number := crew.take()) is not None:
            work = runs.ticking(pieces[number].work(), pieces[number].message)
            while number not in found:
                try:
                    yield next(work)
                except StopIteration as end:
                    found[number] = end.value
                yield from crew.heard(found, runs, 0.0)
        while crew.helps:
            yield runs.so_far(crew.message)  # also where a helper says nothing: a caller may want to stop
            yield from crew.heard(found, runs, PROGRESS_INTERVAL_SECONDS)
    for number in range(len(pieces)):
        if number not in found:  # whoever had taken it has died
            found[number] = yield from runs.ticking(pieces[number].work(), pieces[number].message)
    return [found[number] for number in range(len(pieces))]


class _Crew:
    """The forked processes, and the numbers of the pieces that nobody has taken."""

    def __init__(self, pieces: Sequence[Piece], helpers: int) -> None:
        assert len(pieces) <= MOST_PIECES
        self._pieces = pieces
        self._helpers: dict[Connection, int] = {}
        self.message = pieces[-1].message if pieces else ""  # of the piece that was last heard of
        self._untaken, writing = os.pipe()  # a process that reads a byte has taken it from all others
        os.write(writing, bytes(range(len(pieces))))
        os.close(writing)
        for _ in range(helpers):
            with contextlib.suppress(OSError):  # the system gives no more processes: fewer do the work
                self._fork()

    @property
    def helps(self) -> bool:
        """Whether somebody is still at work."""
        return bool(self._helpers)

    def take(self) -> int | None:
        """The next piece; None where all are taken."""
        number = os.read(self._untaken, 1)
        return number[0] if number else None

    def heard(self, found: dict[int, bytes], runs: Runs, seconds: float) -> Iterator[MeasuringProgress]:
        """Put what the helpers have found into `found`. Waits for so long where they say nothing."""
        for connection in wait(list(self._helpers), seconds):
            assert isinstance(connection, Connection)
            try:
                said = connection.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                os.waitpid(self._helpers.pop(connection), 0)
                connection.close()
                continue
            if isinstance(said, BaseException):
                raise said
            number, done, content = said
            runs.done += done
            if content is not None:
                found[number] = content
            self.message = self._pieces[number].message
            yield runs.so_far(self.message)

    def _fork(self) -> None:
        reading, writing = Pipe(duplex=False)
        parent = os.getpid()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns where there are other threads
            process = os.fork()
        if process == 0:
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                self._help(writing, parent)
            finally:
                os._exit(0)
        writing.close()
        self._helpers[reading] = process

    def _help(self, connection: Connection, parent: int) -> None:
        gc.freeze()  # what was inherited is never collected: a connection's end would be told to its other side
        torch.set_num_threads(1)
        try:
            while (number := self.take()) is not None:
                self._do(number, connection, parent)
        except BaseException as error:  # noqa: BLE001  (whoever waits for it raises it)
            error.add_note(traceback.format_exc())
            try:
                connection.send(error)
            except (pickle.PicklingError, TypeError, AttributeError):
                connection.send(RuntimeError(f"{type(error).__name__}: {error}"))

    def _do(self, number: int, connection: Connection, parent: int) -> None:
        work, done, told = self._pieces[number].work(), 0, time.perf_counter()
        while True:
            try:
                done += next(work) is not None
            except StopIteration as end:
                connection.send((number, done, end.value))
                return
            if os.getppid() != parent:
                os._exit(1)
            if time.perf_counter() - told >= PROGRESS_INTERVAL_SECONDS:
                connection.send((number, done, None))
                done, told = 0, time.perf_counter()

    def __enter__(self) -> _Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves no process: whoever is still at work is killed."""
        for connection, process in self._helpers.items():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            connection.close()
        self._helpers.clear()
        os.close(self._untaken)
