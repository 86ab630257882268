"""Which of several rules runs which tensor: patterns over the tensors' names and roles. Needs no torch.

A pattern is a name ("layer0.weight"), a glob over names ("layer0.*"), a role ("weight", "bias", "vector"), or "*" for
all the rest. The most specific one wins, in this order, whatever order they are written in: the objects of JSON have
none. Of two globs, the one with more characters that are no wildcards wins, then the first by alphabet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

REST = "*"


def best_match(patterns: Iterable[str], name: str | None, roles: Sequence[str]) -> str | None:
    """The pattern that a tensor belongs to; None where none matches.

    name: None where nobody has named it; roles: what it may be, the likeliest first
    """
    ranked = [(rank, pattern) for pattern in patterns if (rank := _rank(pattern, name, roles)) is not None]
    return min(ranked)[1] if ranked else None


def _rank(pattern: str, name: str | None, roles: Sequence[str]) -> tuple[int, int] | None:
    """Lower is more specific."""
    if pattern == name:
        return 0, 0
    if pattern == REST:
        return 3, 0
    if pattern in roles:
        return 2, roles.index(pattern)
    if name is not None and fnmatchcase(name, pattern):
        return 1, -sum(character not in "*?[]" for character in pattern)
    return None
