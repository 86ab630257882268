"""What a shell completes: names that the server has. A server that does not answer in a second completes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradsmith.client import Client

_SECONDS = 1.0
_MOST = 50


def families(incomplete: str) -> list[tuple[str, str]]:
    """Families, with their titles."""
    return _named(incomplete, lambda client: ((each.name, each.title) for each in client.families.list()))


def jobs(incomplete: str) -> list[tuple[str, str]]:
    """The newest jobs, by the end of their ids, which is what differs."""
    given = len(incomplete) if incomplete.startswith("job_") else 0
    found = _named("", lambda client: (("@last", "the newest"), *((each.id, f"{each.kind} of {each.family}, "
                                       f"{each.status}") for each in client.jobs.list(limit=_MOST).data)))  # fmt: skip
    shown = [(name if given or name == "@last" else name[-8:], told) for name, told in found]
    return [(name, told) for name, told in shown if name.startswith(incomplete)]


def optimizers(incomplete: str) -> list[tuple[str, str]]:
    """References, by alias and by version."""
    return _named(
        incomplete,
        lambda client: (
            (f"{each.family}@{name}", each.id)
            for each in client.optimizers.list(limit=_MOST).data
            for name in (*each.aliases, each.version)
        ),
    )


def both(incomplete: str) -> list[tuple[str, str]]:
    """Jobs and optimizers."""
    return [*jobs(incomplete), *optimizers(incomplete)]


def datasets(incomplete: str) -> list[tuple[str, str]]:
    """Data sets, with their sizes."""
    return _named(incomplete, lambda client: ((each.name, f"{each.rows:,} rows") for each in client.datasets.list()))


def _named(incomplete: str, ask: Callable[[Client], Iterable[tuple[str, str]]]) -> list[tuple[str, str]]:
    with _quick() as client:
        return [(name, told) for name, told in ask(client) if name.startswith(incomplete)]
    return []


@contextmanager
def _quick() -> Iterator[Client]:
    """A client that is asked once, for a short time; what it cannot answer is no error."""
    from contextlib import suppress

    from gradsmith.cli.service import client
    from gradsmith.errors import GradsmithError

    with suppress(GradsmithError, ValueError), client() as service:
        yield service.with_options(timeout=_SECONDS, max_retries=0)
