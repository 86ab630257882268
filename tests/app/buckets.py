"""Buckets for tests, and a connection to their server that breaks."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit


def client(url: str) -> Any:
    """boto3's own, apart from what is tested."""
    import boto3

    return boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="anybody", aws_secret_access_key="x", region_name="us-east-1"
    )


def keys(url: str, bucket: str) -> list[str]:
    """All objects of a bucket."""
    return [each["Key"] for each in client(url).list_objects_v2(Bucket=bucket).get("Contents", ())]


@contextmanager
def breaking(url: str, after_bytes: int) -> Iterator[str]:
    """The URL of a way to the same server on which a connection breaks after so many bytes of the client's."""
    there = urlsplit(url)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    near, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=passed_on, args=(near,), daemon=True).start()

        def passed_on(near: socket.socket) -> None:
            with near, socket.create_connection((there.hostname or "", there.port or 80)) as far:
                threading.Thread(target=copied, args=(far, near, None), daemon=True).start()
                copied(near, far, after_bytes)
                for end in (near, far):  # closing alone would not end the other thread's wait
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def copied(source: socket.socket, target: socket.socket, most: int | None) -> None:
    """Pass bytes on until the source ends or `most` have passed."""
    with suppress(OSError):
        while (most is None or most > 0) and (part := source.recv(65_536 if most is None else min(most, 65_536))):
            target.sendall(part)
            most = None if most is None else most - len(part)
