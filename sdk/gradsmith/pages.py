"""Lists of the service: a page is what came, and going through it fetches the pages that follow."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import replace
from typing import Any, Generic, TypeVar

from gradsmith.errors import InvalidResponse
from gradsmith.programs import Call, Items

T = TypeVar("T")


class Listed(Generic[T]):
    """What a page holds.

    data: the entries of this page alone
    has_more: whether pages follow
    next: the `after` of the following page, or None
    """

    def __init__(self, items: Items[T], call: Call[Items[T]]) -> None:
        self.data = items.data
        self.has_more = items.has_more
        self.next = items.next
        self._call = call

    def _following(self) -> Call[Items[T]] | None:
        """The call of the page behind this one. Raises InvalidResponse where that would never end."""
        if self.next is None or not self.has_more:
            return None
        if self.next == self._call.params.get("after"):
            raise InvalidResponse(f"the page behind {self.next!r} names itself as the one that follows")
        return replace(self._call, params={**self._call.params, "after": self.next})

    def __repr__(self) -> str:
        more = ", more follow" if self.has_more else ""
        return f"<{type(self).__name__} of {len(self.data)}{more}: {', '.join(map(repr, self.data[:3]))}>"

    def _repr_html_(self) -> str:
        from gradsmith.html import page

        return page(self.data, self.has_more)


class Page(Listed[T]):
    """A page of a list. Iterating goes on through the pages behind it; `data` is this one alone."""

    def __init__(self, items: Items[T], call: Call[Items[T]], fetch: Callable[[Call[Items[T]]], Page[T]]) -> None:
        super().__init__(items, call)
        self._fetch = fetch

    def next_page(self) -> Page[T] | None:
        """The following page; None behind the last."""
        call = self._following()
        return None if call is None else self._fetch(call)

    def pages(self) -> Iterator[Page[T]]:
        """This page and those behind it, each fetched when it is asked for."""
        page: Page[T] | None = self
        while page is not None:
            yield page
            page = page.next_page()

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from page.data


class AsyncPage(Listed[T]):
    """A page of a list. `async for` goes on through the pages behind it; `data` is this one alone."""

    def __init__(
        self, items: Items[T], call: Call[Items[T]], fetch: Callable[[Call[Items[T]]], Awaitable[AsyncPage[T]]]
    ) -> None:
        super().__init__(items, call)
        self._fetch = fetch

    async def next_page(self) -> AsyncPage[T] | None:
        """The following page; None behind the last."""
        call = self._following()
        return None if call is None else await self._fetch(call)

    async def pages(self) -> AsyncIterator[AsyncPage[T]]:
        """This page and those behind it, each fetched when it is asked for."""
        page: AsyncPage[T] | None = self
        while page is not None:
            yield page
            page = await page.next_page()

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for entry in page.data:
                yield entry


class AsyncListing(Generic[T]):
    """A list that is about to be fetched: `await` gives its first page, `async for` goes through all pages."""

    def __init__(self, call: Call[Items[T]], fetch: Callable[[Call[Items[T]]], Awaitable[AsyncPage[T]]]) -> None:
        self._call, self._fetch = call, fetch

    def __await__(self) -> Generator[Any, Any, AsyncPage[T]]:
        return self._fetch(self._call).__await__()

    async def __aiter__(self) -> AsyncIterator[T]:
        async for entry in await self:
            yield entry
