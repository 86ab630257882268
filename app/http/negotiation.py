"""Which of the media types on offer a caller wants (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

from app.http.problems import Problem


def chosen(accept: str | None, offered: Sequence[str]) -> str:
    """The offered type that `accept` rates highest; earlier offers win ties, and the first one where nothing is asked.

    Raises Problem `not_acceptable` when it rules out all of them.
    """
    if accept is None or not accept.strip():
        return offered[0]
    ranges = [_parse(part) for part in accept.split(",") if part.strip()]
    rated = [(_quality(media_type, ranges), -position) for position, media_type in enumerate(offered)]
    quality, position = max(rated)
    if quality <= 0:
        raise Problem("not_acceptable", f"On offer here: {', '.join(offered)}; asked for: {accept[:200]}.")
    return offered[-position]


def _parse(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = min(1.0, max(0.0, float(parameter[2:])))
            except ValueError:
                quality = 0.0
            if quality != quality:  # "q=nan"
                quality = 0.0
    return name, quality


def _quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """That of the most specific range that covers the type."""
    kind = media_type.partition("/")[0]
    for wanted in (media_type, f"{kind}/*", "*/*"):
        matching = [quality for name, quality in ranges if name == wanted]
        if matching:
            return max(matching)
    return 0.0
