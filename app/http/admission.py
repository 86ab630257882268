"""Who comes in: the key, its scopes and how often it may call. Pure ASGI, as app.http.middleware.

Every path needs a key on a server with keys, save those that `required_scope` names: an endpoint cannot forget it.
"""

from __future__ import annotations

import time
from typing import Protocol

from fastapi.sse import format_sse_event
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.auth import Caller, is_loopback, keys_required, required_scope, unkeyed
from app.auth.keyring import InvalidKey, KeyRing
from app.auth.rates import RateLimits, Standing, of_address
from app.http.problems import Problem, problem_response, response_of
from app.settings import Settings
from app.store.errors import StoreError

REALM = 'Bearer realm="gradsmith"'


class KeysAndRates(Protocol):
    """Those of the process's services that decide who comes in."""

    @property
    def keys(self) -> KeyRing: ...

    @property
    def rates(self) -> RateLimits | None: ...


class Admission:
    """401, 403 and 429; else the request goes on, and `caller` of its state says who asks."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.keyed = keys_required(settings)
        self.recheck_seconds = settings.key_cache_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        needed = required_scope(scope["method"], scope["path"])
        if needed is None:
            await self.app(scope, receive, send)
            return
        services: KeysAndRates = scope["app"].state.services
        caller, token = unkeyed(), None
        if self.keyed:
            try:
                token = _token(scope)
                _refuse_too_many_guesses(services, scope, token)
                caller = await services.keys.verify(token)
            except Exception as error:  # noqa: BLE001  (whatever it is becomes the answer)
                await self._refuse(error, services, scope, receive, send)
                return
        scope.setdefault("state", {})["caller"] = caller
        who = self._counted(scope, caller)
        if services.rates is not None and who is not None:
            standing = await services.rates.hit(who)
            if not standing.allowed:
                await response_of(Request(scope), _too_often(standing))(scope, receive, send)
                return
            send = _with_standing(send, standing)
        if needed not in caller.scopes:
            await response_of(Request(scope), _insufficient(caller, needed))(scope, receive, send)
            return
        if token is None:
            await self.app(scope, receive, send)
            return
        await self.app(scope, receive, _WhileTheKeyLives(send, services, token, self.recheck_seconds))

    async def _refuse(
        self, error: Exception, services: KeysAndRates, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Whoever has no valid key is counted by address, of IPv6 by network."""
        guess = isinstance(error, InvalidKey) or (isinstance(error, Problem) and error.code == "unauthenticated")
        if isinstance(error, InvalidKey):
            challenge = f'{REALM}, error="invalid_token", error_description="{error}"'
            error = Problem("invalid_key", str(error), headers={"WWW-Authenticate": challenge})
        if guess and services.rates is not None and (address := _address(scope)) is not None:
            standing = await services.rates.hit(of_address(address))
            if not standing.allowed:
                error = _too_often(standing)
        await problem_response(Request(scope), error)(scope, receive, send)

    def _counted(self, scope: Scope, caller: Caller) -> str | None:
        """The account that a call counts on; None for this machine's own calls on a server without keys."""
        if caller.api_key is not None:
            return caller.api_key
        address = _address(scope)
        return None if address is None or is_loopback(address) else of_address(address)


class _WhileTheKeyLives:
    """A stream of events may be open for days: it ends when its key no longer works."""

    def __init__(self, send: Send, services: KeysAndRates, token: str, recheck_seconds: float) -> None:
        self._send, self._services = send, services
        self._token, self._recheck_seconds = token, recheck_seconds
        self._checked = time.monotonic()
        self._ended = False
        self._is_events = False

    async def __call__(self, message: Message) -> None:
        if self._ended:
            return
        if message["type"] == "http.response.start":
            self._is_events = Headers(raw=message["headers"]).get("content-type", "").startswith("text/event-stream")
        if message.get("more_body") and time.monotonic() - self._checked > self._recheck_seconds:
            self._checked = time.monotonic()
            try:
                await self._services.keys.verify(self._token)
            except InvalidKey as error:
                self._ended = True  # whoever streams learns of it as of a client who left
                # A comment, as when the server stops: the job's own events tell of the job alone, and an EventSource
                # would take an `error` for a broken connection. Whoever comes back gets the same words with the 401.
                farewell = format_sse_event(comment=f"{error} Come back with another key and Last-Event-ID.")
                await self._send({"type": "http.response.body", "body": farewell if self._is_events else b""})
                return
            except StoreError:  # the database is away: it is asked again with a later part
                pass
        await self._send(message)


def _token(scope: Scope) -> str:
    """Raises Problem `unauthenticated` when there is no bearer token. What else may be in the header is not shown."""
    given = Headers(scope=scope).get("authorization", "")
    scheme, _, token = given.partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    detail = "Send an API key: `Authorization: Bearer gs_<id>_<secret>`."
    if given:
        detail = f"The Authorization header holds no bearer token. {detail}"
    raise Problem("unauthenticated", detail, headers={"WWW-Authenticate": REALM})


def _refuse_too_many_guesses(services: KeysAndRates, scope: Scope, token: str) -> None:
    """Raises Problem `rate_limited`: an address that has tried many keys costs the database nothing more. Keys that
    were valid before go on from there."""
    address = _address(scope)
    if services.rates is None or address is None:
        return
    standing = services.rates.spent(of_address(address))
    if standing is not None and not services.keys.remembers(token):
        raise _too_often(standing)


def _insufficient(caller: Caller, needed: str) -> Problem:
    held = ", ".join(sorted(caller.scopes))
    return Problem(
        "insufficient_scope",
        f"This needs a key with scope {needed}; key {caller.api_key} has {held}.",
        headers={"WWW-Authenticate": f'{REALM}, error="insufficient_scope", scope="{needed}"'},
        required_scope=needed,
    )


def _address(scope: Scope) -> str | None:
    client = scope.get("client")
    return str(client[0]) if client else None


def _headers(standing: Standing) -> dict[str, str]:
    """draft-ietf-httpapi-ratelimit-headers: the rule, and where the caller stands."""
    return {
        "RateLimit-Policy": f'"default";q={standing.limit};w={standing.window_seconds}',
        "RateLimit": f'"default";r={standing.remaining};t={standing.reset_seconds}',
    }


def _too_often(standing: Standing) -> Problem:
    return Problem(
        "rate_limited",
        f"{standing.limit:,} calls in {standing.window_seconds:,} s are allowed. Go on in {standing.reset_seconds} s.",
        headers=_headers(standing) | {"Retry-After": str(standing.reset_seconds)},
    )


def _with_standing(send: Send, standing: Standing) -> Send:
    async def send_with_standing(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(_headers(standing))
        await send(message)

    return send_with_standing
