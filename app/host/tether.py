"""A process that dies with its parent: nothing that Gradsmith starts outlives the process that started it.

`die_with_parent` is a child's first act. `python -m app.host.tether PARENT COMMAND ...` does it for a program that is
not ours: on Linux the kernel keeps the death signal across exec, elsewhere a watcher stays beside the program.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
_WATCH_SECONDS = 0.25


def die_with_parent(parent: int) -> None:
    """Be killed when process `parent` ends, also when that is by SIGKILL; exit now if it has ended already.

    The kernel watches the *thread* that started this process, so a parent starts its children from a thread that
    lives as long as it does (our parents: the main thread).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The parent may have ended between fork and prctl; then no signal will ever come.
        if os.getppid() != parent:
            os._exit(1)
        return
    threading.Thread(target=_exit_without, args=(parent,), name="parent-watch", daemon=True).start()


def tethered(command: Sequence[str]) -> list[str]:
    """`command`, started so that it dies with the process that calls this."""
    return [sys.executable, "-P", "-m", "app.host.tether", str(os.getpid()), *command]


def _exit_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


def _run_watched(parent: int, command: Sequence[str]) -> int:
    """Where the kernel has no death signal: run `command` below us, pass signals on, end it when `parent` is gone."""
    with subprocess.Popen(command) as process:
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda received, _frame: process.send_signal(received))
        while process.poll() is None:
            if os.getppid() != parent:
                process.kill()
            time.sleep(_WATCH_SECONDS)
    return process.returncode


def main(arguments: Sequence[str]) -> int:
    parent, command = int(arguments[0]), list(arguments[1:])
    if sys.platform == "linux":
        die_with_parent(parent)
        os.execvp(command[0], command)
    return _run_watched(parent, command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
