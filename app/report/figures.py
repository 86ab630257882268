"""Pictures of loss curves and evaluations. matplotlib is loaded at the first picture, not with the server.

Only the object-oriented interface is used: pyplot keeps global state that threads would share.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.report.words import LABELS, best_baseline, headline, number, ordered, subtitle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

Format = Literal["png", "svg"]

COLORS = {"learned": "#c2410c", "adam": "#1d4ed8", "rmsprop": "#0f766e", "nag": "#7c3aed", "sgd": "#64748b"}
INK, FAINT = "#1f2937", "#6b7280"

_LABEL_AT = 1.03  # where the labels of the curves' ends begin, in widths of the panel
_MARGIN = 0.012  # free space beside them, in widths of the figure

# Fonts and the text layout are caches that matplotlib shares between threads without a lock of its own.
_ONE_AT_A_TIME = threading.Lock()


def loss_curve(
    columns: dict[str, NDArray[Any]],
    *,
    title: str,
    subtitle: str = "",
    windows_per_trajectory: int = 1,
    image_format: Format = "png",
) -> bytes:
    """The loss of a job over its meta-steps, with the validations as points.

    `columns` holds `step`, `loss` and `validation` (NaN where there was none), each (points,). The loss of one
    meta-step is that of one window: high at a trajectory's start, low at its end. So the line to read is the mean
    over whole trajectories, which is also what a validation measures.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.095, 0.125, 0.87, 0.645))
        step, loss = columns["step"].astype(float), _positive(columns["loss"])
        centres, means = _binned(columns["step"], loss, windows_per_trajectory)
        single = len(centres) < 2
        axes.plot(
            step, loss, color=COLORS["adam"], linewidth=0.8, alpha=0.9 if single else 0.3, label="loss of each window"
        )
        if not single:
            axes.plot(centres, means, color=COLORS["adam"], linewidth=2, label="mean of whole trajectories")
        validation = _positive(columns["validation"])
        seen = np.isfinite(validation)
        if seen.any():
            axes.plot(
                step[seen], validation[seen], linestyle="none", marker="o", markersize=5, color=COLORS["learned"],
                markeredgecolor="white", markeredgewidth=0.8, label="validation, likewise",
            )  # fmt: skip
        missing = ~np.isfinite(columns["loss"])
        if missing.any():
            axes.plot(
                step[missing], np.full(int(missing.sum()), 0.015), transform=axes.get_xaxis_transform(), marker="x",
                linestyle="none", color="#b91c1c", label=f"{int(missing.sum())} windows not finite",
            )  # fmt: skip
        _dress(axes, "meta-step", "loss, mean of the tasks", np.concatenate([loss, validation[seen]]))
        if step.size:
            axes.set_xlim(0, max(float(step[-1]), 1.0) * 1.02)
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
        _titles(figure, title, subtitle)

    return _render(draw, (8.0, 4.5), image_format)


def evaluation(result: dict[str, Any], *, image_format: Format = "png", titled: bool = True) -> bytes:
    """Learned against tuned baselines on held-out tasks: means with 95 % intervals, medians with the middle 80 %.

    The verdict is in the title; a page that says it already leaves it out (`titled`)."""

    rival = best_baseline(result)["baseline"]
    bottom, height = (0.125, 0.645) if titled else (0.145, 0.76)

    def draw(figure: Figure) -> None:
        panels: tuple[tuple[str, str, str, str], ...] = (
            ("mean", "low", "high", "mean of the tasks, with its 95 % interval"),
            ("median", "q10", "q90", f"median task; middle 80 % of learned and {LABELS.get(rival, rival)}"),
        )
        drawn: list[tuple[Axes, list[Annotation]]] = []
        for left, (line, low, high, caption) in zip((0.065, 0.545), panels, strict=True):
            axes = figure.add_axes((left, bottom, 0.335, height))
            ends: list[tuple[float, str]] = []
            every: list[NDArray[Any]] = []
            for name in reversed(ordered(result["optimizers"])):  # the learned one is drawn last, on top
                curve = result["optimizers"][name]["curve"]
                step = np.asarray(curve["step"], dtype=float)
                values = _positive(curve[line])
                color, learned = COLORS.get(name, INK), name == "learned"
                band = _positive(curve[low]), _positive(curve[high])
                # the spread of the tasks is wide: that of two optimizers can be told apart, that of five cannot
                if line == "mean" or name in ("learned", rival):
                    axes.fill_between(step, *band, color=color, alpha=0.22 if learned else 0.1, linewidth=0)
                    every += band
                axes.plot(step, values, color=color, linewidth=2.4 if learned else 1.4)
                finite = values[np.isfinite(values)]
                every.append(finite)
                if finite.size:
                    ends.append((float(finite[-1]), name))
            _dress(axes, "inner step", "loss" if line == "mean" else "", np.concatenate(every or [np.ones(1)]))
            axes.set_title(caption, fontsize=9.5, color=FAINT, loc="left", pad=6)
            axes.set_xlim(0, float(result["horizon"]))
            drawn.append((axes, _label_ends(axes, ends)))
        _make_room(figure, drawn)
        if titled:
            _titles(figure, headline(result), subtitle(result))

    return _render(draw, (11.0, 4.8 if titled else 4.1), image_format)


def _render(draw: Callable[[Figure], None], size_inches: tuple[float, float], image_format: Format) -> bytes:
    with _ONE_AT_A_TIME:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        # a fixed salt and no date: the same result gives the same bytes, so that ETags hold
        with rc_context({"svg.hashsalt": "gradsmith", "svg.fonttype": "path", "font.family": "DejaVu Sans"}):
            figure = Figure(figsize=size_inches, dpi=140, facecolor="white")
            FigureCanvasAgg(figure)
            draw(figure)
            out = io.BytesIO()
            metadata = {"Date": None} if image_format == "svg" else {"Software": "Gradsmith"}
            figure.savefig(out, format=image_format, metadata=metadata)
            return out.getvalue()


def _positive(values: Sequence[float | None] | NDArray[Any]) -> NDArray[np.float64]:
    """As floats, with NaN where there is nothing that a logarithmic axis can show."""
    numbers = np.asarray([np.nan if value is None else value for value in values], dtype=np.float64)
    return np.where(np.isfinite(numbers) & (numbers > 0), numbers, np.nan)


def _binned(
    step: NDArray[Any], loss: NDArray[np.float64], windows_per_trajectory: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean loss of bins that hold whole trajectories, at most 300 of them; a bin that is not full yet is left out."""
    if not step.size:
        return np.empty(0), np.empty(0)
    trajectories = -(-int(step[-1]) // (windows_per_trajectory * 300))
    size = windows_per_trajectory * max(1, trajectories)
    bins = (step - 1) // size
    starts = np.flatnonzero(np.diff(bins, prepend=bins[0] - 1))
    known = np.isfinite(loss)
    count = np.add.reduceat(known.astype(float), starts)
    total = np.add.reduceat(np.where(known, loss, 0.0), starts)
    full = np.diff(np.append(starts, step.size)) == size
    means = np.divide(total, count, out=np.full(len(starts), np.nan), where=count > 0)
    return ((bins[starts] + 0.5) * size + 0.5)[full], means[full]


def _dress(axes: Axes, x_label: str, y_label: str, values: NDArray[Any]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.1, 1.0)
    if high < low * 1.5:  # a flat curve: leave room around it
        low, high = low / 1.5, high * 1.5
    axes.set_yscale("log")
    axes.set_ylim(low / 1.25, high * 1.25)
    decades = np.log10(high / low)
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0,) if decades > 2 else (1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel(x_label, fontsize=9.5, color=INK)
    axes.set_ylabel(y_label, fontsize=9.5, color=INK)
    axes.tick_params(labelsize=8.5, color="#d1d5db", labelcolor=INK, which="both")
    axes.grid(visible=True, which="major", color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#d1d5db")


def _label_ends(axes: Axes, ends: list[tuple[float, str]]) -> list[Annotation]:
    """Each curve's name and last value beside its end, pushed apart where they would overlap. Returns the labels."""
    low, high = np.log(axes.get_ylim())
    wanted = sorted(((np.log(value) - low) / (high - low), value, name) for value, name in ends)
    gap, places = 0.062, [place for place, _, _ in wanted]
    for _ in range(100):
        for below in range(len(places) - 1):
            overlap = gap - (places[below + 1] - places[below])
            if overlap > 0:
                places[below] -= overlap / 2
                places[below + 1] += overlap / 2
        if places and places[0] < 0.03:  # clear of the axis
            places[0] = 0.03
    labels = []
    for place, (end, value, name) in zip(places, wanted, strict=True):
        color = COLORS.get(name, INK)
        label = axes.annotate(
            f"{LABELS.get(name, name)}  {number(value)}",
            xy=(1.0, end), xytext=(_LABEL_AT, place), xycoords="axes fraction", textcoords="axes fraction",
            va="center", ha="left", fontsize=9, color=color, annotation_clip=False,
            fontweight="bold" if name == "learned" else "normal",
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
        labels.append(label)
    return labels


def _make_room(figure: Figure, drawn: list[tuple[Axes, list[Annotation]]]) -> None:
    """Narrow each panel until its widest label ends before the next panel's ticks, or the figure's edge."""
    from matplotlib.text import Text

    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]  # of the Agg canvas
    width = float(figure.bbox.width)
    limit = 1.0 - _MARGIN
    for axes, labels in reversed(drawn):
        left, bottom, _, height = axes.get_position().bounds
        # Text's own extent: that of an annotation includes its arrow
        widest = max((Text.get_window_extent(label, renderer).width for label in labels), default=0.0) / width
        axes.set_position((left, bottom, (limit - left - widest) / _LABEL_AT, height))
        ticks = axes.yaxis.get_tightbbox(renderer)
        limit = (left if ticks is None else ticks.x0 / width) - _MARGIN


def _titles(figure: Figure, title: str, subtitle: str) -> None:
    _fitting(figure, 0.955, title, fontsize=13, fontweight="bold", color=INK)
    _fitting(figure, 0.89, subtitle, fontsize=9.5, color=FAINT)


def _fitting(figure: Figure, y: float, words: str, *, fontsize: float, **style: Any) -> None:
    """A line of text, smaller where it would not fit."""
    text = figure.text(0.02, y, words, fontsize=fontsize, va="center", **style)
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]  # of the Agg canvas
    # step by step: hinting makes widths jump
    while text.get_window_extent(renderer).width > 0.965 * figure.bbox.width and fontsize > 5:
        fontsize -= 0.25
        text.set_fontsize(fontsize)
