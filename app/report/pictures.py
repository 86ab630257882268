"""What some tasks look like after some steps, an optimizer a row: the part of an evaluation's picture that people judge
by eye."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from app.report.figures import FAINT, INK
from app.report.words import LABELS, ordered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE, _GAP = 0.82, 0.05  # inches, as all lengths below
_HEAD, _FOOT, _NAME, _BETWEEN = 0.62, 0.2, 0.7, 0.2


def height_of(result: Mapping[str, Any]) -> float:
    """Inches that `draw_pictures` needs; 0 where the result has no pictures."""
    taken = result.get("pictures")
    return _HEAD + _FOOT + len(taken["optimizers"]) * (_SIDE + _GAP) if taken else 0.0


def draw_pictures(figure: Figure, result: Mapping[str, Any]) -> None:
    """Draw a block for each task at the foot of the figure: what is given on the left, then a row for each optimizer
    and a column for each step."""
    taken = result.get("pictures")
    if not taken:
        return
    width, height = figure.get_size_inches()
    names, top = ordered(taken["optimizers"]), height_of(result) - _HEAD
    steps, block = taken["steps"], _SIDE + _NAME + len(taken["steps"]) * (_SIDE + _GAP) + _BETWEEN
    caption = "The first tasks after some steps, each baseline at its rate for the end"
    figure.text(0.02, (top + 0.4) / height, caption, fontsize=9.5, color=FAINT, va="center")

    def show(image: Any, left: float, row: int, above: str = "") -> None:
        bottom = top - (row + 1) * _SIDE - row * _GAP
        axes = figure.add_axes((left / width, bottom / height, _SIDE / width, _SIDE / height))
        axes.imshow(image, interpolation="nearest")
        axes.set_axis_off()
        if above:
            axes.set_title(above, fontsize=8.5, color=INK, pad=3)

    for task in range(taken["tasks"]):
        left = 0.02 * width + task * block
        for row, (name, sheet) in enumerate(taken["given"].items()):
            show(_cut(taken, sheet, task, 0), left, 2 * row, name)
        for row, name in enumerate(names):
            middle = top - row * (_SIDE + _GAP) - _SIDE / 2
            weight = "bold" if name == "learned" else "normal"
            label = LABELS.get(name, name)
            at = (left + _SIDE + _NAME - 0.06) / width
            figure.text(at, middle / height, label, fontsize=8.5, color=INK, ha="right", va="center", weight=weight)
            for column, step in enumerate(steps):
                image = _cut(taken, taken["optimizers"][name], task, column)
                show(image, left + _SIDE + _NAME + column * (_SIDE + _GAP), row, "" if row else f"step {step}")


def _cut(taken: Mapping[str, Any], sheet: str, row: int, column: int) -> Any:
    """One picture of a sheet."""
    from matplotlib.image import imread

    pixels = imread(io.BytesIO(base64.b64decode(sheet)), format="png")
    height, width = taken["height"], taken["width"]
    return pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
