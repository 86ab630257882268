"""Names of your own for optimizers, such as "quadratic@prod": moved without overwriting the move of another."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from gradsmith.resources import given, parsed
from gradsmith.transport import Transport
from gradsmith.types import Alias, Optimizer, Page


class Aliases:
    """`client.aliases`. An alias stands wherever an optimizer's id does; "latest" and "best" move by themselves.

        prod = client.aliases.create("quadratic", "prod", "quadratic@3")
        prod = client.aliases.move(prod, "quadratic@best")  # fails if somebody else moved it since

    Changes are sent once: after ConnectionFailed, `get` says whether the change was made.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, family: str, *, limit: int = 20, after: str | None = None) -> Page[Alias]:
        """One page of a family's aliases, by name; `after=page.next` gives the following one. Raises NotFound."""
        params = given({"limit": limit, "after": after})
        response = self._transport.request("GET", _path(family), params=params)
        return parsed(response, lambda raw: Page.from_json(raw, Alias.from_json))

    def get(self, family: str, alias: str) -> Alias:
        """The alias as it is now. Raises NotFound."""
        return parsed(self._transport.request("GET", _path(family, alias)), Alias.from_json)

    def create(self, family: str, alias: str, optimizer: str | Optimizer) -> Alias:
        """Make the alias name an optimizer of its family. Raises PreconditionFailed when there is one of that name."""
        return self._put(family, alias, optimizer, {"If-None-Match": "*"})

    def move(self, alias: Alias, optimizer: str | Optimizer) -> Alias:
        """Let the alias name another optimizer of its family; returns what it is then.

        Raises PreconditionFailed when it is no longer as `alias` says: `get` it again, and decide.
        """
        return self._put(alias.family, alias.alias, optimizer, {"If-Match": alias.etag})

    def delete(self, alias: Alias) -> None:
        """Delete the alias; the optimizer stays. Raises PreconditionFailed when it is no longer as `alias` says."""
        path = _path(alias.family, alias.alias)
        self._transport.request("DELETE", path, headers={"If-Match": alias.etag}, tries=1)

    def _put(self, family: str, alias: str, optimizer: str | Optimizer, condition: Mapping[str, str]) -> Alias:
        body = {"optimizer": optimizer.id if isinstance(optimizer, Optimizer) else optimizer}
        response = self._transport.request("PUT", _path(family, alias), body=body, headers=condition, tries=1)
        return parsed(response, Alias.from_json)


def _path(family: str, alias: str | None = None) -> str:
    whole = f"/families/{quote(family, safe='')}/aliases"
    return whole if alias is None else f"{whole}/{quote(alias, safe='')}"
