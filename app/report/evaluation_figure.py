"""The picture of an evaluation: the learned optimizer against tuned baselines, drawn as the verdicts compare them.

A baseline is tuned once for the loss at the end and once for the mean over the whole curve, which often gives two
learning rates and therefore two curves. Each of the first rows shows the runs behind one verdict, the last one shows
time: the means over seconds, and the performance profiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.report.figures import COLORS, FAINT, INK, Format, dress, positive, render, titles
from app.report.kept import kept
from app.report.labels import LABEL_AT, keep_in_sight, label_ends
from app.report.pictures import draw_pictures, height_of
from app.report.time_panels import over_seconds, profiles
from app.report.words import (
    LABELS,
    METRICS,
    best_baseline,
    headline,
    loss_name,
    meaning,
    number,
    ordered,
    shown,
    subtitle,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

_Draw: TypeAlias = "Callable[[Axes], list[Annotation]]"  # draws a panel; returns the labels beside it

_WIDTH = 11.0  # inches, as all lengths below
_HEAD = 0.72  # title and subtitle
_CAPTION, _PANEL, _FOOT = 0.52, 2.95, 0.56  # a row's, from its top

_MARGIN = 0.012  # free space beside them, in widths of the figure


@kept
def evaluation(result: Mapping[str, Any], *, image_format: Format = "png", titled: bool = True) -> bytes:
    """Draw a row for each verdict: means with 95 % intervals, and medians with the middle 80 % of the tasks. A last
    row has the means over seconds and the performance profiles, where the result has them. Pictures of tasks are below,
    where the family has some.

    titled: whether the picture names the verdict; a page that says it already leaves it out
    """
    rows: list[tuple[_Draw, _Draw]] = [
        (
            partial(_panel, result=result, metric=metric, line="mean", band=("low", "high")),
            partial(_panel, result=result, metric=metric, line="median", band=("q10", "q90")),
        )
        for metric in METRICS
        if all(_runs(result, metric).values())
    ]
    if "seconds" in result and "time_to_target" in result:
        rows.append((partial(over_seconds, result=result), partial(profiles, result=result)))
    below = height_of(result)
    height = len(rows) * (_CAPTION + _PANEL + _FOOT) + (_HEAD if titled else 0.0) + below

    def draw(figure: Figure) -> None:
        for row, panels in enumerate(rows):
            bottom = (len(rows) - 1 - row) * (_CAPTION + _PANEL + _FOOT) + _FOOT + below
            places = [(left, bottom / height, 0.335, _PANEL / height) for left in (0.065, 0.545)]
            axes = [figure.add_axes(place) for place in places]
            _make_room(figure, [(each, panel(each)) for each, panel in zip(axes, panels, strict=True)])
        draw_pictures(figure, result)
        if titled:
            titles(figure, headline(result), subtitle(result))

    return render(draw, (_WIDTH, height), image_format)


def _runs(result: Mapping[str, Any], metric: str) -> dict[str, Mapping[str, Any] | None]:
    """The curve of each optimizer's run that counts for `metric`; None where the result does not hold it.

    Results of format 1 hold one curve, tuned for the last step. It counts for both where one learning rate was best
    for both.
    """

    def run(name: str) -> Mapping[str, Any] | None:
        measured: Mapping[str, Any] = result["optimizers"][name]
        if metric == "final":
            return dict(measured["curve"])
        tuned = result["tuning"].get(name)
        if tuned is None:
            return dict(measured.get("area_curve", measured["curve"]))
        if len({(tuned["learning_rate"][each], _schedule(tuned, each)) for each in METRICS}) == 1:
            return dict(measured["curve"])
        found: Mapping[str, Any] | None = measured.get("area_curve")
        return found

    return {name: run(name) for name in ordered(result["optimizers"])}


def _schedule(tuned: Mapping[str, Any], metric: str) -> str:
    return str(tuned["schedule"][metric]) if "schedule" in tuned else "constant"


def _panel(axes: Axes, result: Mapping[str, Any], metric: str, line: str, band: tuple[str, str]) -> list[Annotation]:
    """Draw one statistic of the runs that count for `metric`. Returns the labels of the curves' ends."""
    rival, untuned = best_baseline(result, metric)["baseline"], result.get("tiers", {}).get("untuned", ())
    ends: list[tuple[float, str, str]] = []
    every: list[NDArray[Any]] = [np.empty(0)]
    start = 0.0
    for name, curve in reversed(_runs(result, metric).items()):  # the learned one is drawn last, on top
        assert curve is not None
        step, values = np.asarray(curve["step"], dtype=float), positive(curve[line])
        color, learned = COLORS.get(name, INK), name == "learned"
        # The spread of the tasks is wide: that of two optimizers can be told apart, that of five cannot.
        if line == "mean" or name in ("learned", rival):
            low, high = (positive(curve[side]) for side in band)
            axes.fill_between(step, low, high, color=color, alpha=0.22 if learned else 0.1, linewidth=0)
            every += low, high
        width = 2.4 if learned else 2.0 if name == rival else 1.2
        axes.plot(step, values, color=color, linewidth=width, linestyle="--" if name in untuned else "-")
        finite = values[np.isfinite(values)]
        every.append(finite)
        start = float(values[0])  # the same for all: nothing has moved yet
        if finite.size:
            label = LABELS.get(name, name) if name in (*untuned, "start") else shown(result, name, metric)
            ends.append((float(finite[-1]), name, f"{label}  {number(result['optimizers'][name][metric][line])}"))
    dress(axes, "inner step", loss_name(result) if line == "mean" else "", np.concatenate(every))
    keep_in_sight(axes, start)
    said = {
        "mean": "mean of the tasks, with its 95 % interval",
        "median": f"median task; middle 80 % of learned and {LABELS.get(rival, rival)}",
    }[line]
    tuned = "end" if metric == "final" else "whole curve"
    words = f"\n{said}"
    if line == "mean":
        words = f"Tuned for the {tuned}: {said}\nbeside each line: {meaning(result, metric)}"
        words += "; dashed: untuned" if untuned else ""
    axes.set_title(
        words,
        fontsize=9.5, color=FAINT, loc="left", pad=6,
    )  # fmt: skip
    axes.set_xlim(0, float(result["horizon"]))
    return label_ends(axes, ends)


def _make_room(figure: Figure, drawn: list[tuple[Axes, list[Annotation]]]) -> None:
    """Narrow each panel until its widest label ends before the next panel's ticks, or the figure's edge."""
    from matplotlib.text import Text

    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]  # the Agg canvas has it
    width = float(figure.bbox.width)
    limit = 1.0 - _MARGIN
    for axes, labels in reversed(drawn):
        left, bottom, _, height = axes.get_position().bounds
        # the text's own extent: an annotation's extent includes its arrow
        widest = max((Text.get_window_extent(label, renderer).width for label in labels), default=0.0) / width
        axes.set_position((left, bottom, (limit - left - widest) / LABEL_AT, height))
        ticks = axes.yaxis.get_tightbbox(renderer)
        limit = (left if ticks is None else ticks.x0 / width) - _MARGIN
