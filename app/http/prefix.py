"""The path below which a reverse proxy shows the service, such as `/gradsmith`."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PLACES = ("location", "content-location")


class Prefix:
    """Takes the prefix off a request's path, whether or not the proxy has done so, and puts it before the places that
    answers name. Pages and links find it as `root_path` of the scope."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app = app
        self.root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_prefix(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in _PLACES:
                    if headers.get(name, "").startswith("/"):
                        headers[name] = self.root_path + headers[name]
            await send(message)

        path = scope["path"]
        if path == self.root_path:  # relative links need the slash
            await RedirectResponse(f"{self.root_path}/")(scope, receive, send)
            return
        if path.startswith(f"{self.root_path}/"):
            path = path[len(self.root_path) :]
        await self.app({**scope, "path": path, "root_path": self.root_path}, receive, send_with_prefix)
