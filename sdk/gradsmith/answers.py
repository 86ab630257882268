"""Answers of the server: as values, or as errors in our own words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from gradsmith import errors
from gradsmith.programs import Items
from gradsmith.types import FieldError, Progress

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

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


def record(parse: Callable[[dict[str, Any]], T]) -> Callable[[httpx.Response], T]:
    """Reads an answer that is one record. Raises InvalidResponse where it is none."""

    def read(response: httpx.Response) -> T:
        try:
            return parse(response.json())
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise errors.InvalidResponse(
                f"the answer of {response.request.method} {response.request.url} is not what the API promises "
                f"({error!r}); is a Gradsmith server there, and is it as new as this client?"
            ) from error

    return read


def items(parse: Callable[[dict[str, Any]], T]) -> Callable[[httpx.Response], Items[T]]:
    """Reads an answer that is a page of records. Raises InvalidResponse where it is none."""
    return record(
        lambda raw: Items(tuple(parse(entry) for entry in raw["data"]), bool(raw.get("has_more")), raw.get("next"))
    )


def nothing(_response: httpx.Response) -> None:
    """Reads an answer that says no more than that it was done."""


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
    progress, fields = problem.get("progress"), problem.get("errors")
    if status == 409 and (code == "not_ready" or progress):
        kind = errors.NotReady
    said = str(problem.get("detail") or problem.get("title") or response.reason_phrase)
    return kind(
        f"{said} ({status} {code or response.reason_phrase}, {response.request.method} {response.request.url.path})",
        detail=said,
        status=status,
        code=code,
        errors=tuple(
            FieldError.from_json(entry)
            for entry in (fields if isinstance(fields, list) else ())
            if isinstance(entry, dict)
        ),
        request_id=problem.get("request_id") or response.headers.get("X-Request-Id"),
        retry_after_seconds=_seconds(response.headers.get("Retry-After")),
        progress=Progress.from_json(progress) if isinstance(progress, dict) else None,
    )


def _seconds(text: str | None) -> float | None:
    """Retry-After as seconds; its other form, a date, is left to the doubling pause."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None
