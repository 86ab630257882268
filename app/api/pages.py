"""The two pages for people, a small dashboard at `/` and the API reference at /docs, and the mark that both have."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.responses import HTMLResponse

from app.http.delivery import deliver
from app.openapi.reference import Page

router = APIRouter(include_in_schema=False)


@router.get("/")
def dashboard() -> Response:
    page, policy = _dashboard()
    return HTMLResponse(page, headers={"Content-Security-Policy": policy, "Cache-Control": "no-cache"})


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
    return (Path(__file__).parents[1] / "static" / name).read_bytes()


@cache
def _dashboard() -> tuple[str, str]:
    """The page and its policy: the one inline script is allowed by its hash, everything else comes from this server."""
    page = _static("dashboard.html").decode()
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None, "the page has its script inline"
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy
