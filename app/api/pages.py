"""The pages for people, the dashboard at `/` and the API reference at /docs, and the mark that both have.

The dashboard is served as it is written: one page, its style, ES modules and vendored libraries below
/static/dashboard. It uses the public API alone.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response

from app.http.delivery import deliver
from app.http.problems import Problem
from app.openapi.reference import Page

router = APIRouter(include_in_schema=False)

STATIC = Path(__file__).parents[1] / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@router.get("/")
def dashboard(request: Request) -> Response:
    return deliver(
        request.headers,
        _static("dashboard/index.html"),
        "text/html; charset=utf-8",
        cache_control="no-cache",
        headers={"Content-Security-Policy": POLICY},
        negotiated=False,
    )


@router.get("/static/dashboard/{name:path}")
def dashboard_part(name: str, request: Request) -> Response:
    if name not in _parts():
        raise Problem("not_found", f"The dashboard has no part {name[:100]!r}.")
    media_type = _MEDIA_TYPES[Path(name).suffix]
    # a version's parts fit each other: no browser may mix those of two
    return deliver(
        request.headers, _static(f"dashboard/{name}"), media_type, cache_control="no-cache", negotiated=False
    )


@router.get("/docs")
def reference(request: Request) -> Response:
    page: Page = request.app.state.reference()
    return deliver(
        request.headers,
        page.at(str(request.base_url)).encode(),
        "text/html; charset=utf-8",
        cache_control="no-cache",
        headers={"Content-Security-Policy": page.policy},
    )


@router.get("/favicon.svg")
def mark(request: Request) -> Response:
    return _picture(request, "favicon.svg", "image/svg+xml")


@router.get("/favicon.ico")  # browsers ask for it by themselves, for JSON and reports too
def mark_of_old(request: Request) -> Response:
    return _picture(request, "favicon.ico", "image/x-icon")


def _picture(request: Request, name: str, media_type: str) -> Response:
    return deliver(request.headers, _static(name), media_type, cache_control="public, max-age=86400")


@cache
def _static(name: str) -> bytes:
    return (STATIC / name).read_bytes()


@cache
def _parts() -> frozenset[str]:
    """What may be asked for, found once: a path of a request never reaches the file system."""
    folder = STATIC / "dashboard"
    files = (path for path in folder.rglob("*") if path.suffix in _MEDIA_TYPES)
    return frozenset(path.relative_to(folder).as_posix() for path in files)
