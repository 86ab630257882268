"""Median and range, of rates and of ratios taken pair by pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple


def badness(difference: float) -> tuple[bool, float]:
    """A key for `max`: NaN counts as worse than any number. Without it `max` drops a NaN that does not come first."""
    return math.isnan(difference), difference


class Spread(NamedTuple):
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median(values), min(values), max(values))

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.low:{spec}}-{self.high:{spec}})"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """ours / theirs round by round: what slows the machine down for a moment slows both and cancels."""
    return Spread.of([mine / other for mine, other in zip(ours, theirs, strict=True)])


def least_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Least against least: on a busy machine the moments in which nothing disturbed either."""
    return min(ours) / min(theirs)


def nonlinearity(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """How much more the dearest unit of size costs than the cheapest: 0.15 is 15 %; 0 where cost is proportional."""
    each = [taken / size for size, taken in zip(sizes, seconds, strict=True)]
    return max(each) / min(each) - 1
