"""Pictures of loss curves and evaluations. matplotlib is loaded at the first picture, not with the server.

Only the object-oriented interface is used: pyplot keeps global state that threads would share.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from app.report.words import LABELS, headline, number, ordered, subtitle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Format = Literal["png", "svg"]

COLORS = {"learned": "#c2410c", "adam": "#1d4ed8", "rmsprop": "#0f766e", "nag": "#7c3aed", "sgd": "#64748b"}
INK, FAINT = "#1f2937", "#6b7280"

# Fonts and the text layout are caches that matplotlib shares between threads without a lock of its own.
_ONE_AT_A_TIME = threading.Lock()


def loss_curve(
    columns: dict[str, NDArray[Any]], *, title: str, subtitle: str = "", image_format: Format = "png"
) -> bytes:
    """The loss of a job over its meta-steps, with the validations as points.

    `columns` holds `step`, `loss` and `validation` (NaN where there was none), each (points,).
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.095, 0.125, 0.87, 0.70))
        step, loss = columns["step"].astype(float), _positive(columns["loss"])
        axes.plot(step, loss, color=COLORS["adam"], linewidth=0.8, alpha=0.35 if loss.size > 30 else 0.8)
        if loss.size > 30:
            axes.plot(step, _smoothed(loss), color=COLORS["adam"], linewidth=1.8, label="training loss, smoothed")
        else:
            axes.lines[0].set_label("training loss")
        validation = _positive(columns["validation"])
        seen = np.isfinite(validation)
        if seen.any():
            axes.plot(
                step[seen], validation[seen], linestyle="none", marker="o", markersize=5, color=COLORS["learned"],
                markeredgecolor="white", markeredgewidth=0.8, label="validation (whole trajectory)",
            )  # fmt: skip
        missing = ~np.isfinite(columns["loss"])
        if missing.any():
            axes.plot(
                step[missing], np.full(int(missing.sum()), 0.015), transform=axes.get_xaxis_transform(), marker="x",
                linestyle="none", color="#b91c1c", label=f"{int(missing.sum())} points not finite",
            )  # fmt: skip
        _dress(axes, "meta-step", "loss (mean over the window and tasks)", np.concatenate([loss, validation[seen]]))
        if step.size:
            axes.set_xlim(0, max(float(step[-1]), 1.0) * 1.02)
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="upper right")
        _titles(figure, title, subtitle)

    return _render(draw, (8.0, 4.5), image_format)


def evaluation(result: dict[str, Any], *, image_format: Format = "png") -> bytes:
    """Learned against tuned baselines on held-out tasks: mean with its 95 % interval, median with the middle 80 %."""

    def draw(figure: Figure) -> None:
        panels: tuple[tuple[str, str, str, str], ...] = (
            ("mean", "low", "high", "mean of the tasks, with its 95 % interval"),
            ("median", "q10", "q90", "median task, with the middle 80 % of tasks"),
        )
        for left, (line, low, high, caption) in zip((0.065, 0.545), panels, strict=True):
            axes = figure.add_axes((left, 0.125, 0.335, 0.645))
            ends: list[tuple[float, str]] = []
            every: list[NDArray[Any]] = []
            for name in reversed(ordered(result["optimizers"])):  # the learned one is drawn last, on top
                curve = result["optimizers"][name]["curve"]
                step = np.asarray(curve["step"], dtype=float)
                values = _positive(curve[line])
                color, learned = COLORS.get(name, INK), name == "learned"
                band = _positive(curve[low]), _positive(curve[high])
                axes.fill_between(step, *band, color=color, alpha=0.22 if learned else 0.08, linewidth=0)
                axes.plot(step, values, color=color, linewidth=2.4 if learned else 1.4)
                finite = values[np.isfinite(values)]
                every += [finite, *band]
                if finite.size:
                    ends.append((float(finite[-1]), name))
            _dress(axes, "inner step", "loss" if line == "mean" else "", np.concatenate(every or [np.ones(1)]))
            axes.set_title(caption, fontsize=9.5, color=FAINT, loc="left", pad=6)
            axes.set_xlim(0, float(result["horizon"]))
            _label_ends(axes, ends)
        _titles(figure, headline(result), subtitle(result))

    return _render(draw, (11.0, 4.8), image_format)


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


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A centred geometric mean over a fiftieth of the curve; gaps are left out of it."""
    window = max(3, values.size // 50)
    kernel = np.ones(window)
    known = np.isfinite(values)
    logs = np.where(known, np.log(np.where(known, values, 1.0)), 0.0)
    weight = np.convolve(known.astype(float), kernel, mode="same")
    total = np.convolve(logs, kernel, mode="same")
    return cast(
        "NDArray[np.float64]",
        np.where(known & (weight > 0), np.exp(total / np.maximum(weight, 1.0)), np.nan),
    )


def _dress(axes: Axes, x_label: str, y_label: str, values: NDArray[Any]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

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
    axes.set_xlabel(x_label, fontsize=9.5, color=INK)
    axes.set_ylabel(y_label, fontsize=9.5, color=INK)
    axes.tick_params(labelsize=8.5, color="#d1d5db", labelcolor=INK, which="both")
    axes.grid(visible=True, which="major", color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#d1d5db")


def _label_ends(axes: Axes, ends: list[tuple[float, str]]) -> None:
    """Each curve's name and last value beside its end, pushed apart where they would overlap."""
    low, high = np.log(axes.get_ylim())
    wanted = sorted(((np.log(value) - low) / (high - low), value, name) for value, name in ends)
    gap, places = 0.062, [place for place, _, _ in wanted]
    for _ in range(100):
        for below in range(len(places) - 1):
            overlap = gap - (places[below + 1] - places[below])
            if overlap > 0:
                places[below] -= overlap / 2
                places[below + 1] += overlap / 2
    for place, (end, value, name) in zip(places, wanted, strict=True):
        color = COLORS.get(name, INK)
        axes.annotate(
            f"{LABELS.get(name, name)}  {number(value)}",
            xy=(1.0, end), xytext=(1.03, place), xycoords="axes fraction", textcoords="axes fraction",
            va="center", ha="left", fontsize=9, color=color, annotation_clip=False,
            fontweight="bold" if name == "learned" else "normal",
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip


def _titles(figure: Figure, title: str, subtitle: str) -> None:
    figure.text(0.02, 0.955, title, fontsize=13, fontweight="bold", color=INK, va="center")
    figure.text(0.02, 0.89, subtitle, fontsize=9.5, color=FAINT, va="center")
