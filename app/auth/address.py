"""Whether this server needs keys, and what guards it where it needs none.

Without keys the rule is: this machine only. On another address every request needs a key, unless `GRADSMITH_AUTH=off`
says that something else guards it; `on` asks for keys on loopback too. Against pages in the user's own browser, which
reach loopback too, an unkeyed server answers known Host names only (DNS rebinding) and takes no writes from a page of
another origin; it sends no CORS headers, so such a page cannot read answers either. A key comes in a header that no
browser sends by itself, so a server with keys needs none of this.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from sqlalchemy.exc import SQLAlchemyError

from app.commands import command
from app.settings import Settings
from app.store import keys
from app.store.errors import StoreError
from app.store.sessions import Database
from app.store.sqlite import missing_file

# RFC 9110, section 7.2, with the names of RFC 3986, section 3.2.2. urlsplit by itself forgives much.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(:[0-9]*)?")
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class UnguardedAddress(ValueError):
    """There is no key for a server that asks for one; the message says how to make it."""


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def keys_required(settings: Settings) -> bool:
    """Whether each request needs a key: with `auto`, unless the server is bound to loopback."""
    return settings.auth == "on" or (settings.auth == "auto" and not is_loopback(settings.host))


def refuse_without_keys(settings: Settings, database: Database | None = None) -> None:
    """Raises UnguardedAddress when keys are needed and nobody has one, StoreError when the database cannot say.

    Without a `database`, before anything has started: then a database that is empty or not there holds no key, and one
    that cannot say is not refused here.
    """
    if not keys_required(settings):
        return
    if database is None:
        if _holds_none(settings):
            raise _no_keys(settings)
        return
    with database.read() as session:
        found = keys.any_usable(session)
    if not found:
        raise _no_keys(settings)


def _holds_none(settings: Settings) -> bool:
    if missing_file(settings.resolved_database_url) is not None:
        return True
    try:
        with Database(settings.resolved_database_url) as database:
            if database.revision() is None:
                return True
            with database.read() as session:
                return not keys.any_usable(session)
    except (StoreError, SQLAlchemyError):  # away, or of an older schema: what starts will say so
        return False


def _no_keys(settings: Settings) -> UnguardedAddress:
    make = f"make the first with {command('keys create --scope admin --name me', settings)}"
    if settings.auth == "on":
        return UnguardedAddress(f"GRADSMITH_AUTH=on asks for API keys and there is none that is valid: {make}.")
    return UnguardedAddress(
        f"refusing to serve without keys on {settings.host}: {make}. Or serve on 127.0.0.1, or set GRADSMITH_AUTH=off "
        "where something else guards the address (a container that publishes on 127.0.0.1 only, a private network)."
    )


def allowed_hosts(settings: Settings) -> frozenset[str]:
    """Lower-case Host names without ports; `*` stands for all."""
    names = set(LOOPBACK_NAMES) | {name.lower().strip("[]") for name in settings.allowed_hosts}
    if settings.host not in ("0.0.0.0", "::", ""):
        names.add(settings.host.lower())
    return frozenset(names)


def host_name(header: str) -> str | None:
    """`Example.org:8000` -> `example.org`, `[::1]:8000` -> `::1`; None when it is no host."""
    if not _HOST.fullmatch(header):
        return None
    try:
        parts = urlsplit("//" + header)
        _ = parts.port  # raises on a port that there is not
    except ValueError:
        return None
    return parts.hostname


def same_origin(origin: str, host_header: str) -> bool:
    """Whether a page of `origin` came from this server. `null` (sandboxed pages, files) did not."""
    return urlsplit(origin).netloc.lower() == host_header.lower()
