"""Bytes that can be cached, revalidated and fetched in parts (RFC 9110, sections 13 and 14; RFC 9111)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response

from app.http.preconditions import entity_tags, field
from app.http.problems import Problem

NOT_MODIFIED: dict[str, Any] = {"description": "The caller has it already (`If-None-Match`)."}
_RANGE = re.compile(r"bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})", re.IGNORECASE)


def etag_of(content: bytes) -> str:
    """`"sha256:<hex>"`, quotes included: a strong validator."""
    return f'"sha256:{hashlib.sha256(content).hexdigest()}"'


def deliver(
    request_headers: Headers,
    content: bytes | Callable[[], bytes],
    media_type: str,
    *,
    cache_control: str,
    etag: str | None = None,
    headers: dict[str, str] | None = None,
    ranges: bool = False,
    negotiated: bool = True,
) -> Response:
    """200, 304 when the caller has it already, or 206 with the part that it asked for.

    Raises Problem `precondition_failed` when If-Match names other bytes, and `range_not_satisfiable` for a range that
    is malformed or lies outside the content. Several ranges at once get the whole, as RFC 9110 allows. Content
    that is dear to make is given as a function, with its `etag`. `negotiated`: `Accept` decides what is sent here.
    """
    if callable(content) and etag is None:
        raise TypeError("content that is made on demand needs an etag that is known beforehand")
    etag = etag or etag_of(content)  # type: ignore[arg-type]
    sent = {"ETag": etag, "Cache-Control": cache_control} | ({"Vary": "Accept"} if negotiated else {}) | (headers or {})
    sent["Accept-Ranges"] = "bytes" if ranges else "none"
    # The order is that of RFC 9110, section 13.2.2.
    if (condition := field(request_headers, "if-match")) is not None and not _is_met(condition, etag):
        raise Problem("precondition_failed", f"The ETag here is {etag}, not {condition[:100]}.", headers={"ETag": etag})
    if (condition := field(request_headers, "if-none-match")) is not None and _is_listed(condition, etag):
        return Response(status_code=304, headers=sent)
    content = content() if callable(content) else content
    wanted = request_headers.get("range") if ranges else None
    if wanted is None or not wanted.lower().lstrip().startswith("bytes") or "," in wanted:
        return Response(content, headers=sent, media_type=media_type)
    condition = request_headers.get("if-range")
    if condition is not None and condition.strip() != etag:
        return Response(content, headers=sent, media_type=media_type)
    first, last = _span(wanted, len(content), etag)
    sent["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Response(content[first : last + 1], 206, sent, media_type=media_type)


def _is_met(if_match: str, etag: str) -> bool:
    """The comparison is strong (RFC 9110, section 13.1.1): a weak tag is never met."""
    return if_match.strip() == "*" or (not etag.startswith("W/") and etag in entity_tags(if_match))


def _is_listed(if_none_match: str, etag: str) -> bool:
    """The comparison is weak (RFC 9110, section 13.1.2)."""
    opaque = etag.removeprefix("W/")
    return if_none_match.strip() == "*" or opaque in (tag.removeprefix("W/") for tag in entity_tags(if_none_match))


def _span(wanted: str, size: int, etag: str) -> tuple[int, int]:
    """First and last byte, both inclusive."""
    refusal = Problem(
        "range_not_satisfiable",
        f"{wanted[:100]!r} is no range within these {size} bytes.",
        headers={"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes", "ETag": etag},  # of the bytes
        size=size,
    )
    match = _RANGE.fullmatch(wanted.strip())
    if match is None or match.groups() == ("", ""):
        raise refusal
    start, end = match.groups()
    if start == "":  # the last `end` bytes
        first, last = max(0, size - int(end)), size - 1
    else:
        first, last = int(start), min(int(end), size - 1) if end else size - 1
    if first > last or first >= size or (start and end and int(end) < int(start)):
        raise refusal
    return first, last
