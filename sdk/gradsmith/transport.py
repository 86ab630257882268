"""One request to the service: address, key, time limits, retries, and errors in our own words."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from gradsmith import __version__, errors
from gradsmith.plain import plain
from gradsmith.proxies import transport_for
from gradsmith.types import FieldError, Progress

DEFAULT_BASE_URL = "http://127.0.0.1:8000"
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
# The server sends a sign of life more often than this; a stream that is silent for longer has died.
STREAM_TIMEOUT = httpx.Timeout(45.0, connect=5.0)
UPLOAD_TIMEOUT = httpx.Timeout(30.0, connect=5.0, read=900.0)
TRIES = 5
FAILURES_IN_A_ROW = 10  # where a job is followed: about 90 seconds of trying, which a restart of the server fits in
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 30.0

_BY_STATUS: dict[int, type[errors.ResponseError]] = {
    400: errors.InvalidRequest,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    412: errors.PreconditionFailed,
    413: errors.InvalidRequest,
    415: errors.InvalidRequest,
    422: errors.InvalidRequest,
    429: errors.RateLimited,
}
_RETRIED_STATUSES = frozenset({429, 500, 502, 503, 504})


class Transport:
    """Sends requests. An `http_client` that was given is used as it is and never closed here."""

    def __init__(self, base_url: str | None, api_key: str | None, http_client: httpx.Client | None) -> None:
        given = str(http_client.base_url) if http_client is not None else ""
        self.base_url = _clean_address(base_url or given or os.environ.get("GRADSMITH_URL") or DEFAULT_BASE_URL)
        self._own = http_client is None
        # Given a transport, httpx leaves the proxy variables alone; it still reads .netrc and those of certificates.
        self._http = http_client or httpx.Client(timeout=TIMEOUT, transport=transport_for(self.base_url))
        self._headers = {"User-Agent": f"gradsmith/{__version__}"}
        key = _clean_key(api_key or os.environ.get("GRADSMITH_API_KEY") or "")
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    def close(self) -> None:
        if self._own:
            self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        accept: str = "application/json",
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        tries: int = TRIES,
    ) -> httpx.Response:
        """The answer, a success (2xx). Everything sent here must be safe to send twice (a POST that creates carries
        an Idempotency-Key): lost connections, 429 and 5xx are tried up to 5 times, `Retry-After` is heeded. What is
        not (a change with If-Match would meet its own first try) says `tries=1`.

        Raises ConnectionFailed, or the ResponseError that the status stands for; UnsendableValue for a `body` that JSON
        cannot hold.
        """
        sent = {**self._headers, "Accept": accept, **(headers or {})}
        content = None
        if body is not None:
            content = json.dumps(plain(body), allow_nan=True).encode()  # the server says best what is wrong with a NaN
            sent["Content-Type"] = "application/json"
        for number in range(1, tries + 1):
            try:
                response = self._http.request(
                    method, self.base_url + path, params=params, content=content, headers=sent
                )
            except httpx.TransportError as error:
                if number == tries:
                    raise self._unreachable(error) from None
                time.sleep(pause_seconds(number))
                continue
            if response.is_success:
                return response
            failure = failure_of(response)
            if number == tries or not worth_retrying(failure):
                raise failure
            time.sleep(pause_seconds(number, failure.retry_after_seconds))
        raise AssertionError("unreachable: the last try returns or raises")

    def upload(self, path: str, file: Path, *, params: Mapping[str, Any]) -> httpx.Response:
        """POST a file as it is read. The server may take its time to look at it. Sent once: after ConnectionFailed the
        same call finds what was kept, or sends it again.

        Raises ConnectionFailed, or the ResponseError that the status stands for, and OSError.
        """
        sent = {**self._headers, "Accept": "application/json", "Content-Type": "application/octet-stream"}
        try:
            with file.open("rb") as content:
                response = self._http.post(
                    self.base_url + path, params=params, content=content, headers=sent, timeout=UPLOAD_TIMEOUT
                )
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        if not response.is_success:
            raise failure_of(response)
        return response

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """One try of a stream that is read while it comes. Raises ResponseError, ConnectionFailed."""
        sent = {**self._headers, "Accept": "text/event-stream", "Cache-Control": "no-store", **headers}
        try:
            with self._http.stream("GET", self.base_url + path, headers=sent, timeout=STREAM_TIMEOUT) as response:
                if not response.is_success:
                    response.read()
                    raise failure_of(response)
                yield response
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: httpx.TransportError) -> errors.ConnectionFailed:
        # Raised `from None`: the sixty lines of traceback behind it say no more than its message, which is kept.
        advice = (
            "Start a server with `./run serve`, or set GRADSMITH_URL to where one runs"
            if isinstance(error, httpx.ConnectError)
            else "Try again; nothing that was accepted is lost"
        )
        reason = str(error) or type(error).__name__
        return errors.ConnectionFailed(f"no answer from the Gradsmith server at {self.base_url}: {reason}. {advice}")


def _clean_address(given: str) -> str:
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


def _clean_key(given: str) -> str:
    """Strips surrounding whitespace, such as the line break at the end of a file. Raises ValueError, which never shows
    the key: a key that no header can carry would otherwise appear in the error of whatever fails to send it."""
    key = given.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("the API key holds a blank or a character that no key has; copy it again, gs_<id>_<secret>")
    return key


def pause_seconds(tries: int, retry_after_seconds: float | None = None) -> float:
    """How long to wait after so many failures in a row: what the server asks for, else doubling, with jitter."""
    if retry_after_seconds is not None:
        return retry_after_seconds
    longest: float = min(FIRST_PAUSE_SECONDS * 2 ** (tries - 1), LONGEST_PAUSE_SECONDS)
    return longest * random.uniform(0.5, 1.0)


def worth_retrying(failure: errors.ResponseError) -> bool:
    """True when the same request may succeed soon."""
    if (failure.retry_after_seconds or 0) > LONGEST_PAUSE_SECONDS:
        return False  # better to tell than to hang
    if failure.code == "damaged_data":
        return False  # a 500 that lasts until its operator acts
    return failure.status in _RETRIED_STATUSES or failure.code == "idempotency_in_flight"


def failure_of(response: httpx.Response) -> errors.ResponseError:
    """The error that an answer stands for: problem+json (RFC 9457), or whatever a proxy put there."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"detail": response.text.strip()[:200]}
    status = response.status_code
    kind = _BY_STATUS.get(status, errors.ServerError if status >= 500 else errors.ResponseError)
    code = str(problem.get("code") or "")
    progress = problem.get("progress")
    if status == 409 and (code == "not_ready" or progress):
        kind = errors.NotReady
    said = str(problem.get("detail") or problem.get("title") or response.reason_phrase)
    return kind(
        f"{said} ({status} {code or response.reason_phrase}, {response.request.method} {response.request.url.path})",
        detail=said,
        status=status,
        code=code,
        errors=tuple(FieldError.from_json(entry) for entry in problem.get("errors") or () if isinstance(entry, dict)),
        request_id=problem.get("request_id") or response.headers.get("X-Request-Id"),
        retry_after_seconds=_seconds(response.headers.get("Retry-After")),
        progress=Progress.from_json(progress) if isinstance(progress, dict) else None,
    )


def _seconds(text: str | None) -> float | None:
    """Retry-After as seconds; its other form, a date, is left to the doubling pause."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None
