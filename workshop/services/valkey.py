"""A Redis-compatible server of the caller's own."""

from __future__ import annotations

import atexit
import shutil
import signal
import subprocess
import time

import redis

from app.host.embedded import EmbeddedStoreError, find_binary
from workshop.services.starting import START_SECONDS, NoServer, dies_with_caller, short_folder


class ValkeyServer:
    """A Redis-compatible server in memory, on a unix socket; `stop` and `start` make Redis go away and come back."""

    def __init__(self) -> None:
        try:
            self._binary = find_binary()
        except EmbeddedStoreError as error:
            raise NoServer(f"no Redis: set TEST_REDIS_URL, or {error}") from error
        self.folder = short_folder(for_everyone=False)
        self.socket = self.folder / "v.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)
        self.start()

    def start(self) -> None:
        """Start it, empty, and return once it answers."""
        command = [self._binary, "--port", "0", "--unixsocket", self.socket, "--dir", self.folder]
        self._process = subprocess.Popen(
            [*command, "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=dies_with_caller(signal.SIGKILL),  # noqa: PLW1509
        )
        deadline = time.monotonic() + START_SECONDS
        with redis.Redis(unix_socket_path=str(self.socket), retry=None) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.RedisError as error:
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(f"{self._binary} did not start: {error}") from error
                    time.sleep(0.01)

    def stop(self) -> None:
        """Kill it, with all that it holds."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self.socket.unlink(missing_ok=True)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def flush(url: str) -> None:
    with redis.Redis.from_url(url, retry=None) as client:
        client.flushdb()
