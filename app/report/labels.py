"""Names and numbers beside the ends of curves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from app.report.figures import COLORS, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

LABEL_AT = 1.03  # where the labels begin, in widths of the panel
_LABEL_GAP = 0.062  # between two labels, in heights of the panel


_ABOVE_THE_START = 10.0


def keep_in_sight(axes: Axes, start: float) -> None:
    """Cut the panel at ten times the loss before the first step: a run that diverged by many orders of magnitude would
    press all others onto the axis. Its label still says where it ended."""
    if axes.get_yscale() == "log" and start > 0 and axes.get_ylim()[1] > _ABOVE_THE_START * start:
        axes.set_ylim(top=_ABOVE_THE_START * start)


def label_ends(axes: Axes, ends: list[tuple[float, str, str]]) -> list[Annotation]:
    """Write names and numbers beside the curves' ends, pushed apart where they would overlap. Returns the labels.

    ends: (last loss that is drawn, name, what to write) of each curve
    """
    scale: Callable[[float], float] = np.log if axes.get_yscale() == "log" else float
    low, high = (scale(edge) for edge in axes.get_ylim())
    wanted = sorted((min((scale(last) - low) / (high - low), 1.0), name, text) for last, name, text in ends)
    places = [place for place, _, _ in wanted]
    for _ in range(100):
        for below in range(len(places) - 1):
            overlap = _LABEL_GAP - (places[below + 1] - places[below])
            if overlap > 0:
                places[below] -= overlap / 2
                places[below + 1] += overlap / 2
        if places and places[0] < 0.03:  # clear of the axis
            places[0] = 0.03
        if places and places[-1] > 0.98:  # and of the title
            places[-1] = 0.98
    labels = []
    for place, (end, name, text) in zip(places, wanted, strict=True):
        color = COLORS.get(name, INK)
        label = axes.annotate(
            text,
            xy=(1.0, end), xytext=(LABEL_AT, place), xycoords="axes fraction", textcoords="axes fraction",
            va="center", ha="left", fontsize=9, color=color, annotation_clip=False,
            fontweight="bold" if name == "learned" else "normal",
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
        labels.append(label)
    return labels
