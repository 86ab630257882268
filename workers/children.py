"""The processes that run jobs: each is started by exec, runs one job and ends.

One spare stands ready, with torch and the science imported, so that a job begins at once and not after the seconds
that the imports take. Nothing secret is in a command line: a child reads its settings from the environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

DONE = 0  # exit status: whatever became of the job is in the database
STUCK = 74  # cancelled in the middle of a computation that would not end; the parent reports the job lost
LEASE_LOST = 75  # another attempt owns the job; there is nothing to report


class Child:
    """One `python -m workers.child`, first a spare, then running one job.

    It must be made in the parent's main thread: the kernel's death signal watches the thread that started it.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "workers.child", "--parent", str(os.getpid())],
            stdin=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C reaches the parent alone, and killing it takes along what it started
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def give(self, job_id: str, attempt: int, owner: str) -> None:
        """Hand over its one job. A child that has died meanwhile is noticed by its exit status."""
        order = json.dumps({"job": job_id, "attempt": attempt, "owner": owner}) + "\n"
        with contextlib.suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.write(order.encode())
            self._process.stdin.flush()  # and the pipe stays open: its end tells the child that the parent is gone

    def wait(self, timeout_seconds: float) -> bool:
        """Whether it ended within `timeout_seconds`."""
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def terminate(self) -> None:
        """Ask it to write a checkpoint, hand its job back and end."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and everything that it started."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()


class Nursery:
    """Keeps one spare child ready. Not thread-safe: the parent's main thread owns it."""

    def __init__(self) -> None:
        self._environment = {
            **os.environ,
            # Idle threads of OpenMP that spin steal the core from the one that works (13 times slower was measured).
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
            "PYTHONUNBUFFERED": "1",
        }
        self._spare: Child | None = None

    def keep_ready(self) -> None:
        """Start a spare when there is none, or when it has died."""
        if self._spare is None or not self._spare.alive:
            self._spare = Child(self._environment)

    def take(self) -> Child:
        """The spare, now the caller's. `keep_ready` starts the next one."""
        self.keep_ready()
        child, self._spare = self._spare, None
        assert child is not None
        return child

    def close(self) -> None:
        if self._spare is not None:
            self._spare.kill()
            self._spare = None
