"""Weights in memory: the right bytes, those asked for last, and never more than may be."""

from __future__ import annotations

from app.store.weights import WeightsCache


class Source:
    """A database that counts how often it is read."""

    def __init__(self) -> None:
        self.reads: list[str] = []

    def ask(self, cache: WeightsCache, sha256: str, size: int = 10) -> bytes:
        def read() -> bytes:
            self.reads.append(sha256)
            return sha256[:1].encode() * size

        return cache.get(sha256, read)


def test_what_was_asked_for_lately_is_not_read_again() -> None:
    source, cache = Source(), WeightsCache(capacity_bytes=40)
    for sha256 in ("a", "b", "c", "d", "a", "e", "a", "c", "b"):
        assert source.ask(cache, sha256) == sha256.encode() * 10
    assert source.reads == ["a", "b", "c", "d", "e", "b"]  # e drove out b, for a had been asked for since


def test_what_is_too_large_is_not_kept_and_drives_nothing_out() -> None:
    source, cache = Source(), WeightsCache(capacity_bytes=40)
    for sha256 in ("a", "b"):
        source.ask(cache, sha256)
    for _ in range(2):
        assert source.ask(cache, "large", 11) == b"l" * 11
    for sha256 in ("a", "b"):
        source.ask(cache, sha256)
    assert source.reads == ["a", "b", "large", "large"]
