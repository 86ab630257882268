"""Curves and bars of characters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradsmith.cli import show

if TYPE_CHECKING:
    from rich.console import RenderableType

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_KEPT = 4096
_ROWS = 5
_BAR = 20
_FACTS = 36
_LABEL = 10


class Losses:
    """A curve that grows, as means of equally many points: at most _KEPT of them.

    means: the curve; last: the newest point
    """

    def __init__(self) -> None:
        self.means: list[float] = []
        self.last = math.nan
        self._points = 1  # in each mean
        self._open: list[float] = []

    def add(self, losses: Sequence[float]) -> None:
        """Take points; those that are not finite are left out."""
        for loss in losses:
            if math.isfinite(loss):
                self.last = loss
                self._open.append(loss)
            if len(self._open) == self._points:
                self.means.append(sum(self._open) / self._points)
                self._open = []
            if len(self.means) == _KEPT:
                self.means = [(one + other) / 2 for one, other in zip(self.means[::2], self.means[1::2], strict=True)]
                self._points *= 2

    def keep(self, share: float) -> None:
        """Forget what comes behind this share of the curve: a run that resumes goes through it again."""
        del self.means[max(0, round(share * len(self.means))) :]
        self._open = []


def line(name: str, step: int, total: int, told: Sequence[str], width: int) -> RenderableType:
    """A bar in one line, and what is told behind it, cut where the terminal ends."""
    from rich.text import Text

    drawn = Text(f"{name}  ").append_text(_bar(step, total))
    drawn.append("".join(f"  {each}" for each in told if each))
    drawn.truncate(width, overflow="ellipsis")
    return drawn


def beside(
    name: str, step: int, total: int, facts: Mapping[str, str], losses: Sequence[float], width: int
) -> RenderableType:
    """A bar and facts, and the curve beside them; below them where the terminal is narrow."""
    from rich.text import Text

    cells = min(72, width - _FACTS - _LABEL - 2)
    rows = [Text(f"{name:<12}").append_text(_bar(step, total))]
    rows += [Text(f"{title:<12}{value}") for title, value in facts.items()]
    if cells < 16:
        return Text("\n").join(rows)
    rows += [Text()] * (_ROWS - len(rows))
    for row, drawn in zip(rows, chart(_means(losses, cells), cells, _ROWS), strict=True):
        row.append(" " * (_FACTS - row.cell_len))
        row.append(drawn[:_LABEL], style="dim").append(drawn[_LABEL:], style="cyan")
    return Text("\n").join(rows)


def _bar(step: int, total: int) -> Any:
    from rich.text import Text

    share = min(step / total, 1.0) if total else 0.0
    full = round(share * _BAR)
    drawn = Text("━" * full, style="green").append("━" * (_BAR - full), style="bright_black")
    return drawn.append(f" {share:>4.0%}" if total else "", style="")


def _means(values: Sequence[float], count: int) -> list[float]:
    """At most so many values, each the mean of neighbours."""
    count = min(count, len(values))
    edges = [len(values) * place // count for place in range(count + 1)]
    return [sum(values[start:end]) / (end - start) for start, end in itertools.pairwise(edges)]


def chart(values: Sequence[Any], width: int = 60, height: int = 8) -> list[str]:
    """A curve as lines of blocks, by its logarithm where all values are positive; a gap where one is not finite."""
    finite = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
    if not finite:
        return ["(no finite loss: it diverged)"]
    logarithmic = min(finite) > 0
    count = min(width, len(values))
    shown = [values[place * (len(values) - 1) // max(1, count - 1)] for place in range(count)]
    scale = math.log if logarithmic else float
    low, high = scale(min(finite)), scale(max(finite))
    eighths = [_height(value, scale, low, high, height) for value in shown]
    rows = []
    for row in reversed(range(height)):
        label = show.number(max(finite)) if row == height - 1 else show.number(min(finite)) if row == 0 else ""
        cells = "".join(_EIGHTHS[max(0, min(8, filled - 8 * row))] for filled in eighths)
        rows.append(f"{label:>{_LABEL}} {cells}".rstrip())
    return rows


def _height(value: Any, scale: Any, low: float, high: float, height: int) -> int:
    """In eighths of a row; 1 at least for what is there."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return 0
    share = (scale(value) - low) / ((high - low) or 1.0)
    return max(1, round(8 * height * float(share)))
