"""What an answer tells browsers that they must not do, and what it must not tell anybody."""

from __future__ import annotations

import re

# Pages for people have a policy of their own; what is for programs loads nothing and runs nothing.
_ALWAYS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_BEHIND_TLS = {"Strict-Transport-Security": "max-age=31536000"}


def headers(scheme: str) -> dict[str, str]:
    """Headers of an answer over `scheme`, which uvicorn takes from X-Forwarded-Proto if it trusts the proxy."""
    # Over plain HTTP a browser must ignore HSTS, and on localhost it would bind every other program's port too.
    return _ALWAYS | _BEHIND_TLS if scheme == "https" else _ALWAYS


def raw_headers(scheme: str) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers(scheme).items()]


def without_keys(text: str) -> str:
    """`text` with the secret of each API key in it left out: one that was put into a path comes back in the error."""
    return _KEY.sub(r"\1...", text) if "gs_" in text else text


_KEY = re.compile(r"(gs_[0-9A-Za-z]{8,}_)[0-9A-Za-z]{8,}")
