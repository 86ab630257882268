"""Weights in memory, by the hash of their bytes: what never changes need not be read twice."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

CAPACITY_BYTES = 64 * 2**20  # some thousands of optimizers of the usual size


class WeightsCache:
    """Those asked for last, up to `capacity_bytes`. Threads share it. It knows hashes and no owners: whoever asks has
    found the hash in a workspace of theirs."""

    def __init__(self, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self._capacity = capacity_bytes
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def holds(self, sha256: str) -> bool:
        """Whether `get` would find it at hand, and so not wait for anything."""
        with self._lock:
            return sha256 in self._held

    def get(self, sha256: str, read: Callable[[], bytes]) -> bytes:
        """The bytes of that hash, from `read` where they are not at hand."""
        with self._lock:
            if sha256 in self._held:
                self._held.move_to_end(sha256)
                return self._held[sha256]
        content = read()  # two who ask at once both read: that is harmless, and nobody waits for another's database
        with self._lock:
            if sha256 not in self._held and len(content) <= self._capacity // 4:
                self._held[sha256] = content
                self._size += len(content)
                while self._size > self._capacity:
                    self._size -= len(self._held.popitem(last=False)[1])
        return content
