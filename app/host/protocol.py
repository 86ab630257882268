"""HTTP/1.1 as uvicorn and httptools speak it, with what they leave out: a time and a size for a request's head.

uvicorn closes a connection that idles after an answer (`timeout_keep_alive`), but one that has sent half a header, or
nothing yet, it keeps for ever; and it answers what is no HTTP in plain text. Here every refusal is a problem document.
The time for a body is `app.http.body`'s.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from asyncio.events import TimerHandle
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.http.problems import CATALOGUE, MEDIA_TYPE, document_of

MOST_HEAD_BYTES = 65_536


class PatientProtocol(HttpToolsProtocol):
    """408 for a head (request line and headers) that is not whole `head_timeout_seconds` after its first byte, or after
    the connection was made; 431 for one over 64 KiB; 400 for what is no HTTP.

    A body that dribbles on when its answer has long gone out is cut off by the same time.
    """

    head_timeout_seconds = 10.0

    _timer: TimerHandle | None = None
    _in_head = True
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_longer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and self.parser is not None and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._refuse("headers_too_large", f"The request line and headers are over {MOST_HEAD_BYTES:,} bytes.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._wait()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._wait_no_longer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._wait_no_longer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # the cycle is that of the request parsed last, which may only begin now
        if self.cycle.response_complete and self.cycle.more_body and not self._in_head:
            self._wait()

    def send_400_response(self, msg: str) -> None:
        self._refuse("invalid_http", f"{msg} Requests are HTTP/1.1: a request line, headers, an empty line.")

    def _wait(self) -> None:
        self._wait_no_longer()
        self._timer = self.loop.call_later(self.head_timeout_seconds, self._give_up)

    def _wait_no_longer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._in_head and self._head_bytes:
            waited = f"The request's headers were not complete within {self.head_timeout_seconds:g} seconds."
            self._refuse("too_slow", waited)
        else:  # nothing was asked, or it was answered
            self.transport.close()

    def _refuse(self, code: str, detail: str) -> None:
        """Answer and close; there is no ASGI request to do it. An answer that is under way is cut off instead."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self.transport.write(_answer(code, detail))
        elif not cycle.response_started and not self.pipeline:
            # its body turned out not to be one: the endpoint is told that the client has gone, and says nothing
            self.transport.write(_answer(code, detail))
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()


def patient(head_timeout_seconds: float) -> type[PatientProtocol]:
    """The class for `uvicorn.Config(http=...)`, which takes no arguments for it."""
    return type("PatientProtocol", (PatientProtocol,), {"head_timeout_seconds": head_timeout_seconds})


def _answer(code: str, detail: str) -> bytes:
    request_id = f"req_{uuid.uuid4().hex}"
    document: dict[str, Any] = document_of(code, detail, instance="", request_id=request_id)
    content = json.dumps(document).encode()
    headers = {
        "content-type": MEDIA_TYPE,
        "content-length": str(len(content)),
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "x-request-id": request_id,
        "connection": "close",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return STATUS_LINE[CATALOGUE[code].status] + lines.encode() + b"\r\n" + content
