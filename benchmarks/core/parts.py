"""Where the time of a meta-step goes: methods of the running objects with a clock around them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any

STEPS, WINDOW = "the rule's steps", "the window's gradient"
"""The parts that the machine's limit knows of."""


class Parts:
    """Seconds by part; what a part calls of another counts for the other alone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._within: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._passed()
        self._within.append(name)
        try:
            yield
        finally:
            self._passed()
            self._within.pop()

    def counted(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        """`call`, whose time counts under `name`."""

        @wraps(call)
        def counted(*arguments: Any, **named: Any) -> Any:
            with self.part(name):
                return call(*arguments, **named)

        return counted

    @contextmanager
    def replaced(self, owner: Any, method: str, by: Callable[..., Any]) -> Iterator[None]:
        """Replaces `owner.method` (of an object, a class or a module) by `by` within the context."""
        own = vars(owner).get(method)
        setattr(owner, method, by)
        try:
            yield
        finally:
            if own is None:
                delattr(owner, method)  # the class has it
            else:
                setattr(owner, method, own)

    def timed(self, owner: Any, method: str, name: str) -> AbstractContextManager[None]:
        """Counts calls of `owner.method` under `name` within the context."""
        return self.replaced(owner, method, self.counted(getattr(owner, method), name))

    def _passed(self) -> None:
        now = time.perf_counter()
        if self._within:
            self.seconds[self._within[-1]] += now - self._since
        self._since = now
