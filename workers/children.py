"""The processes that run jobs: each is started by exec, runs one job and ends.

One spare waits ready, with torch and the science imported, so that a job begins at once and not after the seconds that
the imports take. Nothing secret is in a command line: a child reads its settings from the environment.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

from app.settings import Settings
from app.store.leases import Lease
from workers.report import Heard

logger = logging.getLogger("gradsmith.worker")

DONE = 0  # exit status: whatever became of the job is in the database
STUCK = 74  # cancelled in the middle of a computation that would not end; the parent reports the job lost
LEASE_LOST = 75  # another attempt owns the job; there is nothing to report


class JobProcess:
    """One `python -m workers.child`, first a spare, then running one job.

    It must be made in the parent's main thread: the kernel's death signal watches the thread that started it.
    """

    def __init__(self, environment: Mapping[str, str], settings: Settings) -> None:
        self._settings = settings
        reading, writing = os.pipe()
        try:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "workers.child"),
                    *("--parent", str(os.getpid()), "--report", str(writing)),
                ],
                stdin=subprocess.PIPE,
                env=dict(environment),
                pass_fds=(writing,),
                start_new_session=True,  # Ctrl-C reaches the parent alone, and killing it takes along what it started
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._heard: Heard | None = Heard(reading)
        self._started_at = self._heard_at = time.monotonic()
        self._ready = self._begun = self._answered = False
        self._error: str | None = None
        self._killed_because: str | None = None

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

    @property
    def begun(self) -> bool:
        """Whether it has read its order."""
        self._listen()
        return self._begun

    def give(self, lease: Lease) -> None:
        """Hand over its one job. A child that has died meanwhile is noticed by its exit status."""
        self._write(json.dumps({"job": lease.job_id, "attempt": lease.attempt, "owner": lease.owner}))
        self._heard_at = time.monotonic()  # and the pipe stays open: its end tells the child that the parent is gone

    def wait(self, timeout_seconds: float) -> bool:
        """Whether it ended within `timeout_seconds`."""
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def hangs(self) -> str | None:
        """Why to give it up: it is not ready long after its start, or it holds a job and does not renew its lease.

        A sound one that cannot renew (no database, another attempt) ends by itself at the end of its lease.
        """
        self._listen()
        now, started = time.monotonic(), self._settings.process_start_seconds
        silent = self._settings.lease_seconds + self._settings.lease_renewal_seconds
        if not self._ready:
            return f"it was not ready for a job {started:g} s after its start" if self._age(now) > started else None
        return f"it did not renew its lease for {silent:g} s" if now - self._heard_at > silent else None

    def refuses(self) -> str | None:
        """Why not to give it a job: it does not answer, or is not ready long after its start. Waits for its answer."""
        self._listen()
        if self._ready and self.alive:
            self._answered, deadline = False, time.monotonic() + self._settings.process_answer_seconds
            self._write("ping")
            while self.alive and not self._answered:
                left = deadline - time.monotonic()
                if left <= 0:
                    return f"it did not answer within {self._settings.process_answer_seconds:g} s"
                assert self._heard is not None
                select.select([self._heard.descriptor], [], [], min(left, 0.1))
                self._listen()
        return None if self._ready else self.hangs()

    def terminate(self) -> None:
        """Ask it to write a checkpoint, hand its job back and end."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self, because: str | None = None) -> None:
        """End it and everything that it started. `because` is told by `ending`."""
        if self.alive:
            self._killed_because = because
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._listen()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        if self._heard is not None:
            self._heard.close()
            self._heard = None

    def ending(self) -> str:
        """How it ended, to follow its name."""
        status = self.returncode
        assert status is not None, "it still runs"
        if self._killed_because:
            return f"was killed: {self._killed_because}"
        if self._error:
            return f"could not start: {self._error}"
        if status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        return f"ended with exit status {status}" + ("" if self._begun else " before it began")

    def _age(self, now: float) -> float:
        return now - self._started_at

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        for word, detail in self._heard.lines() if self._heard is not None else ():
            self._heard_at = time.monotonic()
            self._ready |= word == "ready"
            self._begun |= word == "begun"
            self._answered |= word == "pong"
            if word == "error":
                self._error = detail


class Nursery:
    """Keeps one spare process ready, unless settings.warm_spare says otherwise. Not thread-safe: the parent's main
    thread owns it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._environment = {
            **os.environ,
            # Idle threads of OpenMP that spin steal the core from the one that works (13 times slower was measured).
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
            "PYTHONUNBUFFERED": "1",
        }
        self._spare: JobProcess | None = None

    def keep_ready(self) -> None:
        """Start a spare when there is none, or when it has died, where one is wanted."""
        if self._settings.warm_spare:
            self._start()

    def _start(self) -> None:
        if self._spare is not None and not self._spare.alive:
            self._spare.kill()  # what it may have started, and its pipes
            self._spare = None
        if self._spare is None:
            self._spare = JobProcess(self._environment, self._settings)

    def take(self) -> JobProcess:
        """The spare, now the caller's; a new process where there is none or it hangs. `keep_ready` starts the next."""
        if self._spare is not None and (reason := self._spare.refuses()) is not None:
            logger.warning("the spare process %d is killed: %s", self._spare.pid, reason)
            self._spare.kill()
        self._start()
        taken, self._spare = self._spare, None
        assert taken is not None
        return taken

    def close(self) -> None:
        if self._spare is not None:
            self._spare.kill()
            self._spare = None
