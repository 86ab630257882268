"""Which route a path belongs to, also for a request that never came to the router: most refusals are made before it."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.routing import BaseRoute, Route


class Paths:
    """All routes of the application."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._routes = [route for route in routes if isinstance(route, Route)]

    def methods_at(self, path: str) -> list[str]:
        """What may be asked of `path`. The framework would name the methods of the first route that matches alone."""
        found = {method for route in self._at(path) for method in route.methods or ()}
        return sorted(found | ({"HEAD"} if "GET" in found else set()))

    def template(self, path: str) -> str | None:
        """`/jobs/{job_id}` for the path of a job, whatever the method; None where nothing is. Never a caller's own
        words."""
        found = self._at(path)
        return found[0].path if found else None

    def _at(self, path: str) -> list[Route]:
        return [route for route in self._routes if route.path_regex.match(path)]
