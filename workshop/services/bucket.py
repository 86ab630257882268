"""An S3-compatible server of the caller's own: moto's, as a process."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from workshop.services.starting import START_SECONDS, NoServer, dies_with_caller

PROGRAM = "GRADSMITH_TEST_S3_SERVER"
"""The environment variable that names moto_server; default: the one beside Python, in .venv/s3-server, or on PATH."""


class BucketServer:
    """Keeps buckets in memory, at `url`; `stop` makes them go away for good."""

    def __init__(self) -> None:
        beside = Path(sys.prefix)
        places = [beside / "bin" / "moto_server", beside / "s3-server" / "bin" / "moto_server"]
        found = next((str(place) for place in places if place.is_file()), shutil.which("moto_server"))
        program = shutil.which(os.environ.get(PROGRAM) or found or "")
        if program is None:
            raise NoServer(
                f"no S3 server: python -m venv {beside}/s3-server && "
                f"{beside}/s3-server/bin/pip install 'moto[s3]' flask flask-cors; or name moto_server by {PROGRAM}"
            )
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [program, "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=dies_with_caller(signal.SIGKILL),  # noqa: PLW1509
        )
        atexit.register(self.stop)
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=5):
                    return
            except (OSError, urllib.error.URLError) as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"moto_server did not start: {error}") from error
                time.sleep(0.05)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to use it, as it is with Amazon's."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "anybody",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def stop(self) -> None:
        """Kill it, with all that it holds."""
        self._process.kill()
        self._process.wait()
