"""Runs the doctor beside the API: a process of its own, one at a time, whose findings stay for some seconds.

The doctor imports what an API process never does, waits for stores that are away, and asks this very server how it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.concurrency import run_in_threadpool

from app.commands import command
from app.settings import Settings

DOCTOR = "app.doctor"  # named, never imported: it knows all rooms of app
FRESH_SECONDS = 30.0
PATIENCE_SECONDS = 120.0  # a first compilation of the kernel is among it


@dataclass(frozen=True)
class Examined:
    """What was found, and when. complete: False where the time was over before the last check."""

    at: datetime
    complete: bool
    findings: list[dict[str, Any]]


class Examination:
    """The doctor of one API process."""

    def __init__(self, settings: Settings, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._settings, self._patience_seconds = settings, patience_seconds
        self._task: asyncio.Task[Examined] | None = None
        self._ended = 0.0
        self._process: subprocess.Popen[str] | None = None

    async def findings(self) -> Examined:
        """Those of the last half minute, else new ones. A caller that comes meanwhile waits for the same."""
        is_old = self._task is not None and self._task.done() and time.monotonic() - self._ended > FRESH_SECONDS
        if self._task is None or is_old:
            self._task = asyncio.create_task(run_in_threadpool(self._examine))
        return await asyncio.shield(self._task)  # who leaves takes nothing from those who wait

    def close(self) -> None:
        """End what runs."""
        if self._process is not None:
            _kill(self._process)

    def _examine(self) -> Examined:
        began = datetime.now(UTC)
        self._process = process = subprocess.Popen(
            [sys.executable, "-P", "-m", DOCTOR],
            env=_environment(self._settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            said, wrong = process.communicate(timeout=self._patience_seconds)
            why = f"ended with {process.returncode}: {(wrong.strip().splitlines() or ['nothing'])[-1]}"
        except subprocess.TimeoutExpired:
            _kill(process)
            said, _ = process.communicate()
            why = f"was not done within {self._patience_seconds:g} s"
        finally:
            self._process, self._ended = None, time.monotonic()
        findings = [json.loads(line) for line in said.splitlines(keepends=True) if line.endswith("\n")]
        complete = process.returncode == 0
        if not complete:
            advice = f"run {command('doctor', self._settings)} on the server's machine"
            findings.append({"check": "doctor", "outcome": "warn", "found": why, "advice": advice})
        return Examined(began, complete, findings)


def _environment(settings: Settings) -> dict[str, str]:
    """Ours, with these settings in the place of what is in it."""
    redis_url = settings.redis_url.get_secret_value() if settings.redis_url is not None else None
    chosen = {
        "GRADSMITH_DATA_DIR": str(settings.data_dir.resolve()),
        "GRADSMITH_HOST": settings.host,
        "GRADSMITH_PORT": str(settings.port),
        "GRADSMITH_AUTH": settings.auth,
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": redis_url,
    }
    kept = {name: value for name, value in os.environ.items() if name not in chosen}
    return kept | {name: value for name, value in chosen.items() if value is not None}


def _kill(process: subprocess.Popen[str]) -> None:
    """With the processes that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
