"""What every request passes on its way in, as pure ASGI: BaseHTTPMiddleware would buffer streams."""

from __future__ import annotations

import ipaddress
import re
import uuid
from functools import lru_cache

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import auth
from app.http import security, uploads
from app.http.problems import Problem, response_of
from app.http.uploads import is_upload
from app.http.wording import shown
from app.settings import Settings

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_PROBES = frozenset({"/healthz", "/readyz"})


class RequestId:
    """`X-Request-Id` on every answer: the caller's own when it is sane, else a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = (
            given
            if _SANE_REQUEST_ID.fullmatch(given) and security.without_keys(given) == given
            else f"req_{uuid.uuid4().hex}"
        )
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        await self.app(scope, receive, send_with_id)


class SecurityHeaders:
    """What `app.http.security` says, on every answer that does not say otherwise."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.headers = {scheme: security.raw_headers(scheme) for scheme in ("http", "https")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        ours = self.headers["https" if scope.get("scheme") == "https" else "http"]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message.get("headers", ())
                present = {name for name, _ in given}
                message["headers"] = [*given, *(header for header in ours if header[0] not in present)]
            await send(message)

        await self.app(scope, receive, send_with_headers)


class HeadAsGet:
    """Every GET answers HEAD too: the same headers, no body. A stream ends at its headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                await send(message)
                await send({"type": "http.response.body", "body": b""})

        async def receive_or_leave() -> Message:
            return {"type": "http.disconnect"} if started else await receive()

        # Range is of GET alone (RFC 9110, section 14.2): HEAD has the headers of the whole.
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await self.app({**scope, "method": "GET", "headers": headers}, receive_or_leave, send_headers)


class Guard:
    """Refuses what a browser could be tricked into sending, and what an unkeyed server must not serve."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.allowed = auth.allowed_hosts(settings)
        self.keyed = auth.keys_required(settings)
        self.any_host = "*" in self.allowed or (self.keyed and not settings.allowed_hosts)
        self.loopback_only = settings.auth == "auto" and not self.keyed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := self._refusal(scope)) is not None:
            await response_of(Request(scope), problem)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        given = headers.getlist("host")
        host_header = given[0] if given else ""
        name = auth.host_name(host_header)
        # RFC 9112, section 3.2: whoever stands before us may go by another Host than we do. HTTP/1.0 needs none.
        if len(given) > 1 or (not given and scope.get("http_version") != "1.0") or (name is None and host_header):
            return Problem("invalid_http", _wrong_host(given))
        if not self.any_host and (name is None or name not in self.allowed) and not _is_probe(scope, name):
            return Problem("host_not_allowed", _unknown_host(host_header, name))
        if self.loopback_only and _is_other_address(scope):
            return Problem("keys_required", "Without keys this server serves loopback only.")
        if scope["method"] in _SAFE_METHODS:
            return None
        origin = headers.get("origin")
        if origin is not None and not self.keyed and not auth.same_origin(origin, host_header):
            return Problem("cross_origin", f"A page of {origin} may not {scope['method']} here.")
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if not has_body and not media_type:
            return None
        if is_upload(scope):
            if media_type not in uploads.MEDIA_TYPES:
                kinds = ", ".join(uploads.MEDIA_TYPES)
                return Problem("unsupported_media_type", f"A file is sent as one of {kinds}, not {media_type!r}.")
        elif not _is_json(media_type):
            seen = repr(media_type) if media_type else "a body without a content type"
            return Problem("unsupported_media_type", f"Bodies are application/json here, not {seen}.")
        return None


def _is_probe(scope: Scope, name: str | None) -> bool:
    """Whether a kubelet or a load balancer asks how this server is, by its address: it knows no name, and nobody can
    list the addresses that a pod will have. An address cannot be rebound as a name can (DNS rebinding)."""
    if name is None or scope["path"] not in _PROBES or scope["method"] not in ("GET", "HEAD"):
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _unknown_host(header: str, name: str | None) -> str:
    advice = "Send the name that it has."
    if name is not None:
        advice = (
            f"If that is a name of it, add {shown(name)} to its setting GRADSMITH_ALLOWED_HOSTS, a JSON list, "
            "and start it anew."
        )
    return f"This server does not answer to the Host {shown(header)}. {advice}"


def _wrong_host(given: list[str]) -> str:
    if not given:
        found = "has no Host header"
    elif len(given) == 1:
        found = f"has the Host {shown(given[0])}, which is no host"
    else:
        found = f"has {len(given)} Host headers, {shown(given[0])} and {shown(given[1])}"
    return f"The request {found}. Send one, such as `Host: localhost:8000`."


def _is_json(media_type: str) -> bool:
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))


def _is_other_address(scope: Scope) -> bool:
    """Whether the connection came in on an address other than loopback, whatever the settings believe."""
    server = scope.get("server")
    return server is not None and _is_beyond_loopback(server[0])


@lru_cache(maxsize=64)  # the addresses of this machine; read anew each time they are a tenth of a small answer
def _is_beyond_loopback(address: str) -> bool:
    try:
        return not ipaddress.ip_address(address).is_loopback
    except ValueError:  # a unix socket's path, or a test's name
        return False
