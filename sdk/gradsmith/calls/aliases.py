"""Names of your own for optimizers, such as "quadratic@prod": moved without overwriting the move of another."""

from __future__ import annotations

from collections.abc import Mapping

from gradsmith.answers import items, nothing, record
from gradsmith.calls.base import M, Resource, call, given, listing, path
from gradsmith.programs import Call, Items
from gradsmith.types import Alias, Optimizer


class Aliases(Resource[M]):
    """`client.aliases`. An alias stands wherever an optimizer's id does; "latest" and "best" move by themselves.

        prod = client.aliases.create("quadratic", "prod", "quadratic@3")
        prod = client.aliases.move(prod, "quadratic@best")  # fails if somebody else moved it since

    Changes are sent once: after ConnectionFailed, `get` says whether the change was made.
    """

    @listing
    def list(self, family: str, *, limit: int = 20, after: str | None = None) -> Call[Items[Alias]]:
        """A family's aliases, by name. limit: so many a page. Raises NotFound."""
        params = given({"limit": limit, "after": after})
        return Call("GET", path("families", family, "aliases"), items(Alias.from_json), params=params)

    @call
    def get(self, family: str, alias: str) -> Call[Alias]:
        """The alias as it is now. Raises NotFound."""
        return Call("GET", path("families", family, "aliases", alias), record(Alias.from_json))

    @call
    def create(self, family: str, alias: str, optimizer: str | Optimizer) -> Call[Alias]:
        """Make the alias name an optimizer of its family. Raises PreconditionFailed when there is one of that name."""
        return _put(family, alias, optimizer, {"If-None-Match": "*"})

    @call
    def move(self, alias: Alias, optimizer: str | Optimizer) -> Call[Alias]:
        """Let the alias name another optimizer of its family; gives what it is then.

        Raises PreconditionFailed when it is no longer as `alias` says: `get` it again, and decide.
        """
        return _put(alias.family, alias.alias, optimizer, {"If-Match": alias.etag})

    @call
    def delete(self, alias: Alias) -> Call[None]:
        """Delete the alias; the optimizer stays. Raises PreconditionFailed when it is no longer as `alias` says."""
        where = path("families", alias.family, "aliases", alias.alias)
        return Call("DELETE", where, nothing, headers={"If-Match": alias.etag}, repeatable=False)


def _put(family: str, alias: str, optimizer: str | Optimizer, condition: Mapping[str, str]) -> Call[Alias]:
    body = {"optimizer": optimizer.id if isinstance(optimizer, Optimizer) else optimizer}
    where = path("families", family, "aliases", alias)
    return Call("PUT", where, record(Alias.from_json), body=body, headers=condition, repeatable=False)
