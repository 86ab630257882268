"""A command in a pseudo-terminal of its own: what it wrote, how it ended, and keys that are pressed on the way."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from benchmarks.terminal.screen import Screen

ROWS = 40
PATIENCE_SECONDS = 600.0  # for a machine that has other things to do
CTRL_C = b"\x03"


@dataclass(frozen=True)
class Press:
    """Keys, once the screen shows what `when` matches; the screen is kept as it is then."""

    when: str
    keys: bytes = b""


@dataclass(frozen=True)
class Session:
    """code: the exit code; seconds: from the start to the end; on_the_way: the screens at each press"""

    screen: Screen
    code: int
    seconds: float
    on_the_way: tuple[Screen, ...] = ()


class Stuck(RuntimeError):
    """A command did not show what was waited for, or did not end."""


def run(
    command: Sequence[str],
    columns: int,
    environment: Mapping[str, str],
    presses: Sequence[Press] = (),
    within: Callable[[Sequence[str]], None] | None = None,
) -> Session:
    """Run a command as the foreground job of a terminal that is so many columns wide. Raises Stuck.

    within: runs it in the process that was forked, with what is imported here, in place of a new program
    """
    began = time.monotonic()
    sys.stdout.flush()
    process, terminal = pty.fork()
    if process == 0:
        for ignored in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):  # as by a shell that started this in background
            signal.signal(ignored, signal.SIG_DFL)
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        if within is None:
            os.execvpe(command[0], list(command), dict(environment))
        _forked(command, environment, within)
    screen, taken, waiting = Screen(columns), list[Screen](), list(presses)
    rest = b""
    try:
        while part := _read(terminal, began + PATIENCE_SECONDS):
            whole = (rest + part).decode("utf-8", "ignore")
            rest = (rest + part)[len(whole.encode()) :]
            screen.feed(whole)
            while waiting and re.search(waiting[0].when, screen.text()):
                press = waiting.pop(0)
                taken.append(screen.copy())
                os.write(terminal, press.keys)
        if waiting:
            raise Stuck(f"{' '.join(command)} never showed {waiting[0].when!r}; it shows\n{screen.text()}")
    except TimeoutError:
        raise Stuck(f"{' '.join(command)} goes on after {PATIENCE_SECONDS:.0f} s; it shows\n{screen.text()}") from None
    finally:
        os.close(terminal)  # which is SIGHUP for a process that still runs
        code = _ended(process)
    return Session(screen, code, time.monotonic() - began, tuple(taken))


def _forked(
    command: Sequence[str], environment: Mapping[str, str], within: Callable[[Sequence[str]], None]
) -> NoReturn:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdout, sys.stderr = (os.fdopen(place, "w", buffering=1, encoding="utf-8") for place in (1, 2))
    code: object = 1
    try:
        within(command)
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 1)


def _read(terminal: int, deadline: float) -> bytes:
    """What comes next, nothing at the end. Raises TimeoutError."""
    while not select.select([terminal], [], [], 1.0)[0]:
        if time.monotonic() > deadline:
            raise TimeoutError
    try:
        return os.read(terminal, 65536)
    except OSError as error:  # Linux says so when the other end is closed
        if error.errno == errno.EIO:
            return b""
        raise


def _ended(process: int) -> int:
    for _ in range(300):
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
