"""Every request is counted and timed, its id is bound to what is logged, and writes and failures leave a line."""

from __future__ import annotations

import logging
import re
import time
from typing import Any
from urllib.parse import quote

from prometheus_client import Histogram
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.paths import Paths
from app.http.security import without_keys
from app.logs import bind_contextvars, reset_contextvars
from app.metrics import Instruments

logger = logging.getLogger("gradsmith.http")

_JOB = re.compile(r"/jobs/(job_[0-9a-f]{32})")
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
UNKNOWN_ROUTE = "(none)"  # paths that nobody serves must not become labels


class Observed:
    """Times what is inside it, until the answer begins: an event stream may last for days."""

    def __init__(self, app: ASGIApp, instruments: Instruments, paths: Paths) -> None:
        self.app = app
        self._paths = paths
        self._in_flight = instruments.http_in_flight
        self._seconds = instruments.http_seconds
        self._histograms: dict[tuple[str, str, int], Histogram] = {}  # as many as there are routes and statuses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = scope.get("state", {}).get("request_id")

        async def send_timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(scope, message, time.perf_counter() - began)
            await send(message)

        # plainly, without context managers: these lines are in the way of every answer
        bound = bind_contextvars(request_id=request_id)
        self._in_flight.inc()
        try:
            await self.app(scope, receive, send_timed)
        finally:
            self._in_flight.dec()
            reset_contextvars(**bound)

    def _note(self, scope: Scope, start: Message, seconds: float) -> None:
        status, method = int(start["status"]), scope["method"]
        route = getattr(scope.get("route"), "path", None)
        if route is None:  # refused before the router had it, or of a route that leaves no trace
            route = self._paths.template(scope["path"]) or UNKNOWN_ROUTE
        self._histogram(method, route, status).observe(seconds)
        # Reads that went well are told by the metrics; dashboards ask for them all day.
        level = logging.INFO if method not in _READS or status >= 400 else logging.DEBUG
        if logger.isEnabledFor(level):
            # quoted: a line break in a path must not begin a line of its own
            path = quote(without_keys(scope["path"]))
            logger.log(level, "%s %s %d", method, path, status, extra=_facts(scope, start, route, seconds))

    def _histogram(self, method: str, route: str, status: int) -> Histogram:
        found = self._histograms.get((method, route, status))
        if found is None:
            found = self._seconds.labels(_known(method), route, str(status))
            if method == _known(method):  # made-up methods would fill the table
                self._histograms[method, route, status] = found
        return found


def _known(method: str) -> str:
    return method if method in {*_READS, "POST", "PUT", "PATCH", "DELETE"} else "other"


def _facts(scope: Scope, start: Message, route: str, seconds: float) -> dict[str, Any]:
    facts = {"method": scope["method"], "route": route, "status": start["status"]}
    facts["milliseconds"] = round(1000 * seconds, 2)
    caller = scope.get("state", {}).get("caller")
    if caller is not None and caller.api_key is not None:
        facts["api_key"] = caller.api_key  # its id; the secret is never kept
    # A job that was just made stands in Location.
    place = MutableHeaders(scope=start).get("location", "") + scope["path"]
    if found := _JOB.search(place):
        facts["job_id"] = found[1]
    return facts
