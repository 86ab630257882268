"""How a description becomes a method: of `Client` one that blocks, of `AsyncClient` one that is awaited.

    class Families(Resource[M]):
        @call
        def get(self, name: str) -> Call[Family]:
            return Call("GET", path("families", name), record(Family.from_json))

`Families[Sync].get` takes a name and gives a `Family`, `Families[Async].get` a coroutine of one, those of
`with_raw_response` a `RawResponse`. Type checkers see all of them: `__get__` is overloaded by the resource's executor.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, TypeVar, overload
from urllib.parse import quote

from gradsmith.executors import Async, Executor, RawAsync, RawResponse, RawSync, Sync
from gradsmith.pages import AsyncListing, Page
from gradsmith.programs import Call, Feed, Items, Program

M = TypeVar("M", bound=Executor)
P = ParamSpec("P")
T = TypeVar("T")


class Resource(Generic[M]):
    """A noun of the API. M: how its calls are carried out"""

    def __init__(self, executor: M) -> None:
        self._executor = executor


class _Described:
    """A method of a resource, by its description."""

    sort: ClassVar[str]
    """The executor's method that carries it out."""

    def __init__(self, describe: Callable[..., Any]) -> None:
        self.describe = describe
        self.__doc__ = describe.__doc__
        self.__name__ = describe.__name__

    def _bound(self, instance: Resource[Any]) -> Callable[..., Any]:
        """The method of one resource, with the description's documentation and a signature that says what it gives."""
        executor = instance._executor
        if self.sort not in executor.gives:
            raise TypeError(f"{self.__name__} is more than one request, so there is no raw response of it")
        carry_out = getattr(executor, self.sort)

        @functools.wraps(self.describe)
        def method(*arguments: Any, **named: Any) -> Any:
            return carry_out(self.describe(instance, *arguments, **named))

        method.__signature__ = self.signature(executor)  # type: ignore[attr-defined]
        return method

    def signature(self, executor: Executor) -> inspect.Signature:
        """The signature that users see."""
        own = inspect.signature(self.describe)
        inner = str(own.return_annotation).partition("[")[2].removesuffix("]").removeprefix("Items[")
        inner = inner.removesuffix("]") if self.sort == "listing" else inner
        gives = executor.gives[self.sort].format(inner)
        return own.replace(parameters=list(own.parameters.values())[1:], return_annotation=gives)


class CallMethod(_Described, Generic[P, T]):
    """One request."""

    sort = "call"

    @overload
    def __get__(self, instance: None, owner: type) -> CallMethod[P, T]: ...
    @overload
    def __get__(self, instance: Resource[Sync], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, instance: Resource[Async], owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, instance: Resource[RawSync], owner: type) -> Callable[P, RawResponse[T]]: ...
    @overload
    def __get__(
        self, instance: Resource[RawAsync], owner: type
    ) -> Callable[P, Coroutine[Any, Any, RawResponse[T]]]: ...
    def __get__(self, instance: Resource[Any] | None, owner: type) -> Any:
        return self if instance is None else self._bound(instance)


class ListMethod(_Described, Generic[P, T]):
    """A list, page by page."""

    sort = "listing"

    @overload
    def __get__(self, instance: None, owner: type) -> ListMethod[P, T]: ...
    @overload
    def __get__(self, instance: Resource[Sync], owner: type) -> Callable[P, Page[T]]: ...
    @overload
    def __get__(self, instance: Resource[Async], owner: type) -> Callable[P, AsyncListing[T]]: ...
    @overload
    def __get__(self, instance: Resource[RawSync], owner: type) -> Callable[P, RawResponse[Items[T]]]: ...
    @overload
    def __get__(
        self, instance: Resource[RawAsync], owner: type
    ) -> Callable[P, Coroutine[Any, Any, RawResponse[Items[T]]]]: ...
    def __get__(self, instance: Resource[Any] | None, owner: type) -> Any:
        return self if instance is None else self._bound(instance)


class ProgramMethod(_Described, Generic[P, T]):
    """Several requests with one result."""

    sort = "program"

    @overload
    def __get__(self, instance: None, owner: type) -> ProgramMethod[P, T]: ...
    @overload
    def __get__(self, instance: Resource[Sync], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, instance: Resource[Async], owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, instance: Resource[Any] | None, owner: type) -> Any:
        return self if instance is None else self._bound(instance)


class FeedMethod(_Described, Generic[P, T]):
    """Values that come one after the other."""

    sort = "feed"

    @overload
    def __get__(self, instance: None, owner: type) -> FeedMethod[P, T]: ...
    @overload
    def __get__(self, instance: Resource[Sync], owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, instance: Resource[Async], owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, instance: Resource[Any] | None, owner: type) -> Any:
        return self if instance is None else self._bound(instance)


def call(describe: Callable[Concatenate[Any, P], Call[T]]) -> CallMethod[P, T]:
    """A method that makes one request and gives what is read of its answer."""
    return CallMethod(describe)


def listing(describe: Callable[Concatenate[Any, P], Call[Items[T]]]) -> ListMethod[P, T]:
    """A method that gives the first page of a list, which goes on."""
    return ListMethod(describe)


def program(describe: Callable[Concatenate[Any, P], Program[T]]) -> ProgramMethod[P, T]:
    """A method that carries out a program."""
    return ProgramMethod(describe)


def feed(describe: Callable[Concatenate[Any, P], Feed[T]]) -> FeedMethod[P, T]:
    """A method that gives what a feed emits."""
    return FeedMethod(describe)


def path(*parts: str) -> str:
    """The path of these segments: each is quoted, so that none reaches into the next."""
    return "".join("/" + quote(part, safe="@") for part in parts)


def given(params: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was left out."""
    return {name: value for name, value in params.items() if value is not None}
