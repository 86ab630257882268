"""A proxy that cuts connections: in the answer's headers, in its body, or before it says anything."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class CuttingProxy(socketserver.ThreadingTCPServer):
    """Passes each connection on to a server, and closes it after some bytes of the answer.

    cut: how many bytes the next connection lives for; None lets it be
    connections: how many there were
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, url: str, cut: Callable[[], int | None]) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.target = parts.hostname, parts.port
        self.cut = cut
        self.connections = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Passing(socketserver.BaseRequestHandler):
    server: CuttingProxy

    def handle(self) -> None:
        with self.server.lock:
            self.server.connections += 1
            left = self.server.cut()
        with socket.create_connection(self.server.target) as upstream, suppress(OSError):
            request = threading.Thread(target=_pump, args=(self.request, upstream), daemon=True)
            request.start()
            while left is None or left > 0:
                part = upstream.recv(65536)
                if not part:
                    break
                self.request.sendall(part if left is None else part[:left])
                left = None if left is None else left - len(part)
            self.request.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(65536):
            target.sendall(part)


@contextmanager
def cutting_proxy(url: str, cut: Callable[[], int | None]) -> Iterator[CuttingProxy]:
    """Runs until the block ends."""
    with CuttingProxy(url, cut) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join(10)
