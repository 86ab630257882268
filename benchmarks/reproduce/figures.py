"""The paper's figures 4 to 8, in its layout: a column for each of its panels, over steps and, below, over seconds.

Baselines have the mean of the test tasks with its 95 % interval; a variant has the median of its meta-seeds' means,
with a band from the lowest seed to the highest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.report.figures import COLORS, FAINT, INK, frame, positive, render, titles
from app.report.words import LABELS, number
from benchmarks.reproduce.experiments import Experiment, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Json = Mapping[str, Any]
Column = tuple[Experiment, Panel, Json | None]
"""An experiment's panel, and what was found on it; None where it was not run."""

COLUMN, ROW, HEAD, FOOT = 4.1, 2.75, 0.75, 0.85  # inches
_OURS = "#ea580c"
_VARIANTS = ("#db2777", "#65a30d", "#7c2d12", "#ca8a04")
_PAPER = "#111827"
_UNITS = ((1e-3, 1e6, "microseconds"), (1.0, 1e3, "milliseconds"), (np.inf, 1.0, "seconds"))


def curves(columns: Sequence[Column], chosen: Mapping[str, str | None], title: str, subtitle: str) -> bytes:
    """A PNG: losses over steps, and below over the seconds of one task. chosen: the variant that is ours, by
    experiment"""
    size = (COLUMN * len(columns), HEAD + 2 * ROW + FOOT)

    def draw(figure: Figure) -> None:
        handles: dict[str, Any] = {}
        colors: dict[str, str] = {}
        for place, (experiment, panel, found) in enumerate(columns):
            for row in range(2):
                axes = figure.add_axes(_place(place, row, len(columns), size[1]))
                if found is None or not found["rows"]:
                    _empty(axes, panel, row)
                    continue
                own = chosen.get(experiment.name)
                handles |= _panel(axes, panel, found, () if own is None else (own,), colors, in_seconds=row == 1)
                if row == 0:
                    axes.set_title(panel.name, fontsize=10.5, color=INK)
                if place == 0 or row == 0:
                    axes.set_ylabel("loss, mean of test tasks" if place == 0 else "", fontsize=9.5, color=INK)
        _legend(figure, handles)
        titles(figure, title, subtitle)

    return render(draw, size, "png")


def sizes(found: Json, chosen: Collection[str], title: str, subtitle: str) -> bytes:
    """A PNG: the loss of the last five steps over the number of hidden units, a column for each number of layers."""
    panels = [panel for panel in found["panels"] if panel["rows"]]
    layers = sorted({len(_hidden(panel)) for panel in panels})
    size = (COLUMN * max(1, len(layers)), HEAD + ROW + FOOT)

    def draw(figure: Figure) -> None:
        handles: dict[str, Any] = {}
        for place, depth in enumerate(layers):
            axes = figure.add_axes(_place(place, 0, len(layers), size[1], rows=1))
            own = sorted((panel for panel in panels if len(_hidden(panel)) == depth), key=lambda each: _hidden(each)[0])
            units = [_hidden(panel)[0] for panel in own]
            for name in own[0]["baselines"]:
                means = positive([panel["baselines"][name]["final"]["mean"] for panel in own])
                handles[LABELS[name]] = axes.plot(units, means, color=COLORS[name], marker="o", markersize=3)[0]
            for variant, style in styles(own[0]["rows"], chosen).items():
                seeds = np.stack([
                    positive([_row(panel, variant, seed)["final"]["mean"] for panel in own])
                    for seed in sorted({row["seed"] for row in own[0]["rows"] if row["variant"] == variant})
                ])  # fmt: skip
                axes.fill_between(units, seeds.min(axis=0), seeds.max(axis=0), color=style["color"], alpha=0.2, lw=0)
                handles[variant] = axes.plot(units, np.median(seeds, axis=0), marker="o", markersize=3, **style)[0]
            axes.set_yscale("log")
            axes.set_title(f"{depth} hidden layer{'s' if depth > 1 else ''}", fontsize=10.5, color=INK)
            axes.set_xticks(units)
            frame(axes, "hidden units in each layer", "loss, last five of 100 steps" if place == 0 else "")
            _numbers(axes)
        _legend(figure, handles)
        titles(figure, title, subtitle)

    return render(draw, size, "png")


def styles(
    rows: Sequence[Json], chosen: Collection[str], colors: dict[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """A line style for each variant, in the order in which they stand. colors: those that were given, which go on"""
    found: dict[str, dict[str, Any]] = {}
    colors = {} if colors is None else colors
    for row in rows:
        name = row["variant"]
        if name in found:
            continue
        ours, paper = name in chosen, row["row"] == "paper"
        if not (ours or paper):
            colors.setdefault(name, _VARIANTS[len(colors) % len(_VARIANTS)])
        found[name] = {
            "color": _OURS if ours else _PAPER if paper else colors[name],
            "linewidth": 2.4 if ours else 1.8,
            "linestyle": "-" if ours else (0, (4, 2)) if paper else (0, (1, 1)),
        }
    return found


def _panel(
    axes: Axes, panel: Panel, found: Json, chosen: Collection[str], colors: dict[str, str], *, in_seconds: bool
) -> dict[str, Any]:
    """Draw one panel; returns a handle by label for the legend."""
    from matplotlib.ticker import MaxNLocator

    handles: dict[str, Any] = {}
    horizon = found["horizon"]
    steps = np.arange(horizon + 1)
    shown = steps >= panel.from_step
    longest = max(found["baselines"][name]["seconds"] for name in found["baselines"])
    scale, unit = next((scale, unit) for below, scale, unit in _UNITS if longest < below)
    lowest: list[float] = []

    def when(seconds: float) -> NDArray[np.float64]:
        return steps * (seconds / horizon * scale if in_seconds else 1.0)

    best = found["rows"][0]["best_baseline"]["final"]["baseline"]
    for name, each in found["baselines"].items():
        mean, low, high = (positive(each["curve"][line])[shown] for line in ("mean", "low", "high"))
        at = when(each["seconds"])[shown]
        if each["curve"]["mean"][-1] is not None and each["curve"]["mean"][-1] < each["curve"]["mean"][0]:
            axes.fill_between(at, low, high, color=COLORS[name], alpha=0.12, linewidth=0)  # a diverged one hides all
        width, alpha, layer = (2.0, 1.0, 2.5) if name == best else (1.2, 0.45, 2.0)
        [line] = axes.plot(at, mean, color=COLORS[name], linewidth=width, alpha=alpha, zorder=layer)
        handles.setdefault(LABELS[name], line)
        lowest.append(_lowest(mean))
    for variant, style in styles(found["rows"], chosen, colors).items():
        own = [row for row in found["rows"] if row["variant"] == variant]
        means = np.stack([positive(row["curve"]["mean"]) for row in own])[:, shown]
        seconds = float(np.median([row["seconds"] for row in own]))
        middle, at = np.nanmedian(means, axis=0), when(seconds)[shown]
        axes.fill_between(at, np.nanmin(means, axis=0), np.nanmax(means, axis=0), color=style["color"], alpha=0.2, lw=0)
        label = f"{variant} (chosen)" if variant in chosen else variant  # of another experiment it may not be
        handles[label] = axes.plot(at, middle, **style)[0]
        lowest.append(_lowest(middle))
    _scale(axes, found, shown, min(lowest))
    frame(axes, f"{unit} for one task" if in_seconds else "step", "")
    _numbers(axes)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlim((0, None) if in_seconds else (panel.from_step, horizon))
    return handles


def _scale(axes: Axes, found: Json, shown: NDArray[np.bool_], lowest: float) -> None:
    """A logarithmic axis from the lowest curve to a little above where all of them begin in this panel."""
    first = int(np.argmax(shown))
    starts = [each["curve"]["mean"][first] for each in (*found["baselines"].values(), *found["rows"])]
    top = max((start for start in starts if start is not None), default=1.0)
    top = min(top, 3 * found["rows"][0]["curve"]["mean"][0])
    axes.set_yscale("log")
    axes.set_ylim(0.8 * lowest, 1.5 * top)


def _lowest(values: NDArray[np.float64]) -> float:
    return float(np.nanmin(values)) if np.isfinite(values).any() else np.inf


def _numbers(axes: Axes) -> None:
    """Plain numbers on a logarithmic axis, and enough of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_ylim()
    few = np.log10(high / low) > 2
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0,) if few else (1.0, 2.0, 3.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _place(column: int, row: int, columns: int, height: float, rows: int = 2) -> tuple[float, float, float, float]:
    """Where a panel is, in shares of the figure."""
    left = (column + 0.17) / columns
    bottom = (FOOT + (rows - 1 - row) * ROW + 0.5) / height
    return left, bottom, 0.79 / columns, (ROW - 0.8) / height


def _empty(axes: Axes, panel: Panel, row: int) -> None:
    axes.set_axis_off()
    if row == 0:
        axes.set_title(panel.name, fontsize=10.5, color=INK)
        axes.text(0.5, 0.5, "not run", ha="center", va="center", fontsize=10, color=FAINT, transform=axes.transAxes)


def _legend(figure: Figure, handles: Mapping[str, Any]) -> None:
    figure.legend(
        list(handles.values()), list(handles), loc="lower center", ncols=min(len(handles), 5), frameon=False,
        fontsize=9, labelcolor=INK, bbox_to_anchor=(0.5, 0.0),
    )  # fmt: skip


def _hidden(panel: Json) -> list[int]:
    """The hidden layers of a panel's networks; what a panel does not change is the paper's network."""
    found: list[int] = panel["overrides"].get("hidden", [20])
    return found


def _row(panel: Json, variant: str, seed: int) -> Json:
    found: Json = next(row for row in panel["rows"] if (row["variant"], row["seed"]) == (variant, seed))
    return found
