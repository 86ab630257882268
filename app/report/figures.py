"""The picture of a job's loss, and what it shares with other pictures.

matplotlib is loaded at the first picture, not with the server. Only its object-oriented interface is used: pyplot keeps
global state that threads would share.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.report.kept import kept
from app.report.words import number
from models.baselines import BASELINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Format = Literal["png", "svg"]

# one for each baseline, in the order of the register; a longer register begins anew
_PALETTE = (
    "#64748b",
    "#7c3aed",
    "#0f766e",
    "#1d4ed8",
    "#a16207",
    "#be185d",
    "#4d7c0f",
    "#0e7490",
    "#9f1239",
    "#57534e",
)
COLORS = {"learned": "#c2410c", "schedule": "#a21caf", "start": "#86198f"}
COLORS |= dict(zip(BASELINES, cycle(_PALETTE), strict=False))
_LOSS = "#1d4ed8"
INK, FAINT = "#1f2937", "#6b7280"
# Fonts and the text layout are caches that matplotlib shares between threads without a lock of its own.
_ONE_AT_A_TIME = threading.Lock()


@kept
def loss_curve(
    columns: dict[str, NDArray[Any]],
    *,
    title: str,
    subtitle: str = "",
    windows_per_trajectory: int = 1,
    image_format: Format = "png",
) -> bytes:
    """Draw the loss of a job over its meta-steps, with the validations as points.

    columns: `step`, `loss` and `validation` (NaN where there was none), (points,) each

    The loss of a meta-step is the loss of its window, which is high where a trajectory begins and low where it ends.
    The line to read is therefore the mean over whole trajectories, which is also what a validation measures.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.095, 0.125, 0.87, 0.645))
        step, loss = columns["step"].astype(float), positive(columns["loss"])
        centres, means = _binned(columns["step"], loss, windows_per_trajectory)
        single = len(centres) < 2
        axes.plot(step, loss, color=_LOSS, linewidth=0.8, alpha=0.9 if single else 0.3, label="loss of each window")
        if not single:
            axes.plot(centres, means, color=_LOSS, linewidth=2, label="mean of whole trajectories")
        validation = positive(columns["validation"])
        seen = np.isfinite(validation)
        if seen.any():
            axes.plot(
                step[seen], validation[seen], linestyle="none", marker="o", markersize=5, color=COLORS["learned"],
                markeredgecolor="white", markeredgewidth=0.8, label="mean of a validation",
            )  # fmt: skip
        missing = ~np.isfinite(columns["loss"])
        if missing.any():
            axes.plot(
                step[missing], np.full(int(missing.sum()), 0.015), transform=axes.get_xaxis_transform(), marker="x",
                linestyle="none", color="#b91c1c", label=f"{int(missing.sum())} windows with a non-finite loss",
            )  # fmt: skip
        dress(axes, "meta-step", "loss, mean of the tasks", np.concatenate([loss, validation[seen]]))
        if step.size:
            axes.set_xlim(0, max(float(step[-1]), 1.0) * 1.02)
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
        titles(figure, title, subtitle)

    return render(draw, (8.0, 4.5), image_format)


def render(draw: Callable[[Figure], None], size_inches: tuple[float, float], image_format: Format) -> bytes:
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


def positive(values: Sequence[float | None] | NDArray[Any]) -> NDArray[np.float64]:
    """Convert to floats, with NaN for what a logarithmic axis cannot show."""
    numbers = np.asarray([np.nan if value is None else value for value in values], dtype=np.float64)
    return np.where(np.isfinite(numbers) & (numbers > 0), numbers, np.nan)


def _binned(
    step: NDArray[Any], loss: NDArray[np.float64], windows_per_trajectory: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres and mean losses of at most 300 bins, each of which holds whole trajectories.

    The last bin is left out until it is full.
    """
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


def dress(axes: Axes, x_label: str, y_label: str, values: NDArray[Any]) -> None:
    """A logarithmic axis that holds `values`, with its labels, grid and frame."""
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
    frame(axes, x_label, y_label)


def frame(axes: Axes, x_label: str, y_label: str) -> None:
    """Labels, grid and frame, whatever the scales."""
    axes.set_xlabel(x_label, fontsize=9.5, color=INK)
    axes.set_ylabel(y_label, fontsize=9.5, color=INK)
    axes.tick_params(labelsize=8.5, color="#d1d5db", labelcolor=INK, which="both")
    axes.grid(visible=True, which="major", color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#d1d5db")


def titles(figure: Figure, title: str, subtitle: str) -> None:
    height = figure.get_figheight()  # inches
    _fitting(figure, 1 - 0.21 / height, title, fontsize=13, fontweight="bold", color=INK)
    _fitting(figure, 1 - 0.51 / height, subtitle, fontsize=9.5, color=FAINT)


def _fitting(figure: Figure, y: float, words: str, *, fontsize: float, **style: Any) -> None:
    """Write a line of text, in a smaller size where it would not fit."""
    text = figure.text(0.02, y, words, fontsize=fontsize, va="center", **style)
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]  # the Agg canvas has it
    # step by step: hinting makes widths jump
    while text.get_window_extent(renderer).width > 0.965 * figure.bbox.width and fontsize > 5:
        fontsize -= 0.25
        text.set_fontsize(fontsize)
