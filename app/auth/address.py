"""Who may talk to this server.

Without keys the rule is: this machine only. A server that is bound to another address refuses to start unless
`GRADSMITH_AUTH=off` says that something else guards it. Against pages in the user's own browser, which reach
loopback too, an unkeyed server answers known Host names only (DNS rebinding) and takes no writes from a page of
another origin; it sends no CORS headers, so such a page cannot read answers either.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from app.settings import Settings

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class UnguardedAddress(ValueError):
    """The server would serve without keys on an address that others can reach."""


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_unguarded(settings: Settings) -> None:
    """Raises UnguardedAddress when `settings` would serve without keys on an address other than loopback."""
    if settings.auth == "auto" and not is_loopback(settings.host):
        raise UnguardedAddress(
            f"refusing to serve without keys on {settings.host}: anyone who reaches that address could run jobs here. "
            "Serve on 127.0.0.1, or set GRADSMITH_AUTH=off where something else guards the address "
            "(a container that publishes on 127.0.0.1 only, a private network)."
        )


def allowed_hosts(settings: Settings) -> frozenset[str]:
    """Lower-case Host names without ports; `*` stands for all."""
    names = set(LOOPBACK_NAMES) | {name.lower().strip("[]") for name in settings.allowed_hosts}
    if settings.host not in ("0.0.0.0", "::", ""):
        names.add(settings.host.lower())
    return frozenset(names)


def host_name(header: str) -> str | None:
    """`Example.org:8000` -> `example.org`, `[::1]:8000` -> `::1`; None when it is no host."""
    try:
        parts = urlsplit("//" + header)
        _ = parts.port  # raises on a port that is no number
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or parts.username is not None:
        return None
    return parts.hostname


def same_origin(origin: str, host_header: str) -> bool:
    """Whether a page of `origin` came from this server. `null` (sandboxed pages, files) did not."""
    return urlsplit(origin).netloc.lower() == host_header.lower()
