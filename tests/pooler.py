"""A transaction pooler, as pgbouncer before 1.21 is one: each transaction of a client may meet another server process,
and prepared statements are neither followed nor removed."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
from sqlalchemy import make_url

_SSL, _GSS = 80877103, 80877104  # codes that stand where a protocol version would
_TOLD = ("server_version", "client_encoding", "DateStyle", "integer_datetimes", "standard_conforming_strings")


@contextmanager
def pooled(url: str, processes: int = 2) -> Iterator[str]:
    """The URL of a pooler on loopback in front of the Postgres at `url`, with that many server processes."""
    parsed = make_url(url)
    dsn = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
    connections = [psycopg.connect(dsn, autocommit=True, sslmode="disable") for _ in range(processes)]
    told = b""
    for name in _TOLD:
        value = connections[0].info.parameter_status(name) or ""
        told += _message(b"S", f"{name}\0{value}\0".encode())
    free: queue.Queue[socket.socket] = queue.Queue()
    for connection in connections:  # libpq has logged in; from here on its socket is ours
        taken = socket.socket(fileno=os.dup(connection.fileno()))
        taken.setblocking(True)
        free.put(taken)
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                client, _ = listener.accept()
                threading.Thread(target=_serve, args=(client, free, told), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        port = listener.getsockname()[1]
        yield parsed.set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for _ in connections:
            free.get(timeout=10).close()
        for connection in connections:
            connection.close()


def _serve(client: socket.socket, free: queue.Queue[socket.socket], told: bytes) -> None:
    with client, suppress(OSError, EOFError):
        while int.from_bytes(_startup(client)[:4]) in (_SSL, _GSS):
            client.sendall(b"N")
        key = os.urandom(8)  # a pooler's own: its client will meet many processes
        client.sendall(_message(b"R", bytes(4)) + told + _message(b"K", key) + _message(b"Z", b"I"))
        while True:
            first = _read(client)
            if first[:1] == b"X":
                return
            server = free.get()
            try:
                _transaction(client, server, first)
            finally:
                free.put(server)


def _transaction(client: socket.socket, server: socket.socket, message: bytes) -> None:
    """Relay until the server is idle again."""
    while True:
        server.sendall(message)
        if message[:1] in (b"S", b"Q"):  # Sync or Query: the server answers, and says at the end whether it is idle
            while True:
                answer = _read(server)
                client.sendall(answer)
                if answer[:1] == b"Z":
                    break
            if answer[-1:] == b"I":
                return
        message = _read(client)


def _startup(connection: socket.socket) -> bytes:
    return _exactly(connection, int.from_bytes(_exactly(connection, 4)) - 4)


def _read(connection: socket.socket) -> bytes:
    """One message with its head: a letter, and the length of what follows the letter."""
    head = _exactly(connection, 5)
    return head + _exactly(connection, int.from_bytes(head[1:]) - 4)


def _message(kind: bytes, content: bytes) -> bytes:
    return kind + (len(content) + 4).to_bytes(4) + content


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = connection.recv(count - len(found))
        if not more:
            raise EOFError
        found += more
    return found
