"""What the client does, apart from how it waits: calls described as values, and programs that yield effects.

A program is a generator. It yields an effect, is sent the outcome or thrown the error, and returns its result. The
executors of `gradsmith.executors` carry effects out, one by blocking, the other on an event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

Program: TypeAlias = Generator["Effect", Any, T]
"""Yields effects and returns a T."""
Feed: TypeAlias = Generator["Effect | Emit[T]", Any, None]
"""Yields effects, and each T that it has for its user as an `Emit`."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its answer is read.

    path: below the server's address, quoted
    read: the answer, a success (2xx), as the value that the caller gets
    body: sent as JSON
    file: sent as it is read, with its SHA-256 as the query's `sha256`
    repeatable: whether it is safe to send twice; what is not (a change with If-Match would meet its own first try) is
        sent once
    blocking: whether `read` writes to a disk, which an event loop must not wait for
    read_timeout_seconds: how long the server may be silent; default: the client's
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    accept: str = "application/json"
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    file: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    blocking: bool = False
    read_timeout_seconds: float | None = None


@dataclass(frozen=True)
class Items(Generic[T]):
    """What a list answers: one page. next: the `after` of the following page"""

    data: tuple[T, ...]
    has_more: bool
    next: str | None


@dataclass(frozen=True)
class Send:
    """One try of a call; gives the answer, whatever its status. Raises ConnectionFailed, InvalidResponse."""

    call: Call[Any]


@dataclass(frozen=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """Run something that blocks, such as reading a large file; gives what it returns."""

    function: Callable[[], Any]


@dataclass(frozen=True)
class Open:
    """Begin to read an answer as it comes; gives it. The one before is closed. Raises ConnectionFailed."""

    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Read:
    """The next bytes of the answer that is open; None at its end. Raises ConnectionFailed."""


@dataclass(frozen=True)
class Emit(Generic[T]):
    """A value for the user of a feed."""

    value: T


Effect: TypeAlias = Send | Sleep | Work | Open | Read
