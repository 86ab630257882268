"""What the process of a job tells its worker: short lines on a pipe that the two of them share.

- `ready`: it waits for a job
- `pong`: the answer to a ping
- `begun`: it has read its order
- `renewed`: it holds its lease
- `error TEXT`: why it cannot start
"""

from __future__ import annotations

import contextlib
import os
from typing import Literal

Word = Literal["ready", "pong", "begun", "renewed", "error"]

LONGEST_DETAIL = 500  # characters: with the word it fits what a pipe takes whole or not at all (PIPE_BUF, 4,096 bytes)


class Report:
    """The writing end. Safe from any thread, for each line is one write."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor

    def say(self, word: Word, detail: str = "") -> None:
        """Never waits and never raises: a worker that does not read, because it is stopped, only misses the line."""
        line = " ".join([word, *detail.split()])[:LONGEST_DETAIL] + "\n"
        with contextlib.suppress(OSError):
            os.write(self._descriptor, line.encode(errors="replace"))


class Heard:
    """The reading end: the lines since the last look."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._unfinished = b""

    @property
    def descriptor(self) -> int:
        return self._descriptor

    def lines(self) -> list[tuple[str, str]]:
        """(word, detail) of each whole line that has come; does not wait."""
        with contextlib.suppress(BlockingIOError):
            while read := os.read(self._descriptor, 65536):
                self._unfinished += read
        *whole, self._unfinished = self._unfinished.split(b"\n")
        parts = [line.decode(errors="replace").partition(" ") for line in whole]
        return [(word, detail) for word, _, detail in parts]

    def close(self) -> None:
        os.close(self._descriptor)
