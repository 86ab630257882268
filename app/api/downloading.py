"""The downloads of data sets that an API process began."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from pathlib import Path

from models.datasets import downloads


class Downloading:
    """The downloads that this API process began; they end with it."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []
        self._lock = threading.Lock()

    def begin(self, name: str, data_dir: Path) -> None:
        with self._lock:
            self._processes = [process for process in self._processes if process.poll() is None]
            self._processes.append(downloads.begin(name, data_dir))

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
