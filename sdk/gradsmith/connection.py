"""Where the server is, what every request carries, and what a connection that failed is called."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import httpx

from gradsmith import __version__, errors
from gradsmith.plain import plain
from gradsmith.programs import Call, Open
from gradsmith.retries import Options

DEFAULT_BASE_URL = "http://127.0.0.1:8000"
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
# The server sends a sign of life more often than this; a stream that is silent for longer has died.
STREAM_SILENCE_SECONDS = 45.0


@dataclass(frozen=True)
class Connection:
    """What requests have in common. headers: with the key, which no repr shows"""

    base_url: str
    headers: dict[str, str] = field(repr=False)
    options: Options = field(default_factory=Options)

    @classmethod
    def to(cls, base_url: str | None, api_key: str | None, http_client: httpx.Client | httpx.AsyncClient | None = None,
           ) -> Connection:  # fmt: skip
        """The server that was named, else `http_client`'s, else the environment's. Raises ValueError."""
        given = str(http_client.base_url) if http_client is not None else ""
        address = clean_address(base_url or given or os.environ.get("GRADSMITH_URL") or DEFAULT_BASE_URL)
        headers = {"User-Agent": f"gradsmith/{__version__}"}
        key = clean_key(api_key or os.environ.get("GRADSMITH_API_KEY") or "")
        if key:
            headers["Authorization"] = f"Bearer {key}"
        return cls(address, headers)

    def changed(self, timeout: float | httpx.Timeout | None, max_retries: int | None) -> Connection:
        """With other options; None leaves one as it is."""
        now = self.options
        options = Options(
            now.timeout if timeout is None else timeout, now.max_retries if max_retries is None else max_retries
        )
        return replace(self, options=options)

    def request(self, call: Call[Any]) -> dict[str, Any]:
        """What httpx sends for a call, apart from the bytes of its file. Raises UnsendableValue."""
        sent = {**self.headers, "Accept": call.accept, **call.headers}
        content = None
        if call.body is not None:
            # The server says best what is wrong with a NaN.
            content = json.dumps(plain(call.body), allow_nan=True).encode()
            sent["Content-Type"] = "application/json"
        if call.file is not None:
            sent["Content-Type"] = "application/octet-stream"
            sent["Content-Length"] = str(call.file.stat().st_size)
        return {
            "method": call.method, "url": self.base_url + call.path, "params": plain(call.params) or None,
            "content": content, "headers": sent, **self._timeout(call.read_timeout_seconds),
        }  # fmt: skip

    def stream(self, opened: Open) -> dict[str, Any]:
        """What httpx sends for an answer that is read while it comes."""
        sent = {**self.headers, "Accept": "text/event-stream", "Cache-Control": "no-store", **opened.headers}
        usual = TIMEOUT if self.options.timeout is None else httpx.Timeout(self.options.timeout)
        timeout = _silent(usual, STREAM_SILENCE_SECONDS)
        return {"method": "GET", "url": self.base_url + opened.path, "headers": sent, "timeout": timeout}

    def _timeout(self, read_seconds: float | None) -> dict[str, httpx.Timeout]:
        """Nothing where the time limits are those of the `httpx` client."""
        if self.options.timeout is not None:
            return {"timeout": httpx.Timeout(self.options.timeout)}
        return {} if read_seconds is None else {"timeout": _silent(TIMEOUT, read_seconds)}

    def failed(self, error: httpx.RequestError) -> errors.ServiceError:
        """An error of httpx in our words; raised `from None`, for its traceback says no more than its message."""
        if not isinstance(error, httpx.TransportError):
            return errors.InvalidResponse(
                f"the answer of the server at {self.base_url} cannot be read: {error}; is a Gradsmith server there?"
            )
        advice = (
            "Start a server with `./run serve`, or set GRADSMITH_URL to where one runs"
            if isinstance(error, httpx.ConnectError)
            else "Try again; nothing that was accepted is lost"
        )
        reason = _system_s_words(error) or str(error) or type(error).__name__
        return errors.ConnectionFailed(f"no answer from the Gradsmith server at {self.base_url}: {reason}. {advice}")


def _system_s_words(error: BaseException | None) -> str:
    """What the operating system said, such as "Connection refused": an event loop puts its own words before it."""
    while error is not None:
        if isinstance(error, BaseExceptionGroup):  # of a host with several addresses
            error = error.exceptions[0]
            continue
        if isinstance(error, ConnectionError) and error.errno is not None:
            return f"[Errno {error.errno}] {os.strerror(error.errno)}"
        error = error.__cause__ or error.__context__
    return ""


def _silent(timeout: httpx.Timeout, seconds: float) -> httpx.Timeout:
    """The same for a server that may be silent for so long."""
    return httpx.Timeout(connect=timeout.connect, write=timeout.write, pool=timeout.pool, read=seconds)


def clean_address(given: str) -> str:
    """Strips surrounding whitespace and trailing slashes from an address. Raises ValueError if it is not one."""
    address = given.strip()
    problem = ""
    try:
        parts = urlsplit(address)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            problem = "must begin with http:// or https:// and a host"
        elif any(character.isspace() or not character.isprintable() for character in address):
            problem = "has a blank or a control character in it"
        elif parts.query or parts.fragment:
            problem = "must end before its ? or #"
        else:
            _ = parts.port  # raises where there is no such port
            httpx.URL(address)
    except (ValueError, httpx.InvalidURL) as error:
        problem = f"cannot be read ({error})"
    if problem:
        raise ValueError(
            f"the server's address {problem}, and {given!r} is none; give one such as {DEFAULT_BASE_URL} "
            "(base_url, or the environment variable GRADSMITH_URL)"
        )
    return address.rstrip("/")


def clean_key(given: str) -> str:
    """Strips surrounding whitespace, such as the line break at the end of a file. Raises ValueError, which never shows
    the key: a key that no header can carry would otherwise appear in the error of whatever fails to send it."""
    key = given.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("the API key holds a blank or a character that no key has; copy it again, gs_<id>_<secret>")
    return key
