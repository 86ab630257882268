"""What an optimizer does, as a picture: its updates as a function of the gradient, and over the steps of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.report.figures import COLORS, FAINT, INK, Format, frame, render, titles
from app.report.kept import kept
from app.report.words import LABELS, number, ordered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEAD, _ROW = 11.0, 0.8, 2.35  # inches, as the two below
_CAPTION, _FOOT = 0.42, 0.5  # a row's, from its top
_LEFT, _RIGHT, _GAP = 0.065, 0.985, 0.052  # in widths of the figure
_SHARE = 0.98  # of updates that a panel shows whole; a first step that is ten times the others leaves it
_PANELS = 3  # in a row of update histories


@kept
def anatomy(found: Mapping[str, Any], *, reference: str, image_format: Format = "png") -> bytes:
    """Draw a row of responses for each coordinate that has them, then the updates of every sampled coordinate.

    found: what the JSON form has
    reference: of the optimizer, for the title
    """
    watched: dict[int, list[Mapping[str, Any]]] = {}
    for response in found["responses"]:
        watched.setdefault(response["coordinate"], []).append(response)
    sampled = list(range(len(found["coordinates"])))
    rows: list[Sequence[Any]] = [*watched.values()]
    rows += [sampled[first : first + _PANELS] for first in range(0, len(sampled), _PANELS)]
    height = _HEAD + _ROW * len(rows)

    def draw(figure: Figure) -> None:
        for row, panels in enumerate(rows):
            columns = _PANELS if row >= len(watched) else max(len(each) for each in watched.values())
            width = (_RIGHT - _LEFT + _GAP) / columns
            bottom = (height - _HEAD - _ROW * (row + 1) + _FOOT) / height
            for column, panel in enumerate(panels):
                place = (_LEFT + column * width, bottom, width - _GAP, (_ROW - _CAPTION - _FOOT) / height)
                axes = figure.add_axes(place)
                _history(axes, found, panel) if row >= len(watched) else _response(axes, found, panel)
        names = _names(found)
        lines = [_line(name) for name in names]
        figure.legend(
            lines, list(names.values()), loc="upper left", bbox_to_anchor=(0.012, 1 - 0.6 / height), ncols=len(lines),
            frameon=False, fontsize=9.5, labelcolor=INK,
        )  # fmt: skip
        titles(figure, f"How {reference} moves a coordinate of {found['family']}", subtitle(found))

    return render(draw, (_WIDTH, height), image_format)


def subtitle(found: Mapping[str, Any]) -> str:
    """What the panels are."""
    return (
        f"above: the update for each gradient that might have come (dotted: the one that did), after the same "
        f"gradients; below: each optimizer's own updates, first {found['steps']} steps; one held-out task, seed "
        f"{found['seed']}"
    )


def coordinate(found: Mapping[str, Any], number_of: int) -> str:
    """`layer0.weight[3, 12]`: a sampled coordinate, as people say it."""
    each = found["coordinates"][number_of]
    return f"{each['part']}{each['index']}" if each["index"] else str(each["part"])


def _names(found: Mapping[str, Any]) -> dict[str, str]:
    """What the legend calls each optimizer."""
    told = {}
    for name in ordered(found["updates"]):
        settings = found["optimizers"].get(name)
        told[name] = LABELS.get(name, name)
        if settings is not None:
            schedule = "" if settings["schedule"] == "constant" else f", {settings['schedule']}"
            tuned = "tuned" if settings["tuned"] else "torch's default"
            told[name] += f" at {number(settings['learning_rate'])}{schedule} ({tuned})"
    return told


def _line(name: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=COLORS.get(name, INK), linewidth=_thickness(name))


def _thickness(name: str) -> float:
    return 2.2 if name == "learned" else 1.3


def _response(axes: Axes, found: Mapping[str, Any], response: Mapping[str, Any]) -> None:
    gradient = np.asarray(response["gradient"], dtype=float)
    axes.axhline(0, color="#d1d5db", linewidth=0.8)
    if response["had"] is not None:
        axes.axvline(response["had"], color=FAINT, linewidth=1, linestyle=":")
    for name in reversed(ordered(response["update"])):
        axes.plot(gradient, _floats(response["update"][name]), color=COLORS.get(name, INK), linewidth=_thickness(name))
    after = response["after"]
    history = "before any gradient" if after == 0 else f"after {after} gradient{'' if after == 1 else 's'}"
    _dress(axes, f"{coordinate(found, response['coordinate'])}, {history}", "gradient")
    axes.set_xlim(gradient[0], gradient[-1])


def _history(axes: Axes, found: Mapping[str, Any], place: int) -> None:
    axes.axhline(0, color="#d1d5db", linewidth=0.8)
    reach = 0.0
    for name in reversed(ordered(found["updates"])):
        updates = _floats(found["updates"][name][place])
        axes.plot(np.arange(1, len(updates) + 1), updates, color=COLORS.get(name, INK), linewidth=_thickness(name))
        finite = np.abs(updates[np.isfinite(updates)])
        reach = max(reach, float(np.quantile(finite, _SHARE)) if finite.size else 0.0)
    if reach > 0:
        axes.set_ylim(-1.15 * reach, 1.15 * reach)
    _dress(axes, coordinate(found, place), "inner step")
    axes.set_xlim(1, max(2, found["steps"]))


def _floats(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.asarray([np.nan if value is None else value for value in values], dtype=np.float64)


def _dress(axes: Axes, title: str, x_label: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    frame(axes, x_label, "")
    axes.set_title(title, fontsize=9, color=FAINT, loc="left", pad=5)
