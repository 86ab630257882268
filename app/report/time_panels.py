"""The panels of an evaluation's picture that show time: means over seconds, and performance profiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.report.figures import COLORS, FAINT, INK, dress, frame, positive
from app.report.labels import keep_in_sight, label_ends
from app.report.words import LABELS, best_baseline, loss_name, number, ordered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

_UNITS = ((1e-3, 1e6, "microseconds"), (1.0, 1e3, "milliseconds"), (np.inf, 1.0, "seconds"))


def over_seconds(axes: Axes, result: Mapping[str, Any]) -> list[Annotation]:
    """Draw the mean losses of the runs that were tuned for the end over the seconds that they take, as far as the best
    baseline's run in equal time takes. Returns the labels of the curves' ends."""
    timed = result["seconds"]
    rival = best_baseline(timed)["baseline"]
    longest, untuned = timed["run"][rival], result.get("tiers", {}).get("untuned", ())
    scale, unit = next((scale, unit) for below, scale, unit in _UNITS if longest < below)
    every: list[NDArray[Any]] = [np.empty(0)]
    ends: list[tuple[float, str, str]] = []
    start = 0.0
    for name in reversed(ordered({name: None for name in timed["run"] if name in result["optimizers"]})):
        curve, learned = result["optimizers"][name]["curve"], name == "learned"
        when = np.asarray(curve["step"], dtype=float) * timed["run"][name] / result["horizon"]
        within = when <= longest * (1 + 1e-9)
        values = positive(curve["mean"])[within]
        width = 2.4 if learned else 2.0 if name == rival else 1.2
        style = "--" if name in untuned else "-"
        axes.plot(when[within] * scale, values, color=COLORS.get(name, INK), linewidth=width, linestyle=style)
        finite = values[np.isfinite(values)]
        every.append(finite)
        start = float(values[0])  # the same for all: nothing has moved yet
        if finite.size:
            ends.append((float(finite[-1]), name, f"{LABELS.get(name, name)}  {number(float(finite[-1]))}"))
    dress(axes, f"{unit} for one task", loss_name(result), np.concatenate(every))
    keep_in_sight(axes, start)
    axes.set_xlim(0, longest * scale)
    _title(axes, "In equal time: mean of the tasks, runs tuned for the end\nbeside each line: last loss that is drawn")
    return label_ends(axes, ends)


def profiles(axes: Axes, result: Mapping[str, Any]) -> list[Annotation]:
    """Draw the performance profiles: solid in steps, dashed in seconds. Returns the labels of the solid ones.

    Untuned baselines are left out: with them there are some twenty lines.
    """
    timed, untuned = result["time_to_target"], result.get("tiers", {}).get("untuned", ())
    ends: list[tuple[float, str, str]] = []
    for name in reversed(ordered({name: None for name in timed["steps"] if name not in untuned})):
        color, width = COLORS.get(name, INK), 2.4 if name == "learned" else 1.2
        for unit, style in (("steps", "solid"), ("seconds", (0, (3, 2)))):
            shares = timed[unit][name]["profile"]
            axes.plot(timed["ratio"], shares, color=color, linewidth=width, linestyle=style, drawstyle="steps-post")
        score = number(timed["steps"][name]["score"])
        ends.append((timed["steps"][name]["profile"][-1], name, f"{LABELS.get(name, name)}  {score}"))
    frame(axes, "time, as a factor of the quickest optimizer's", "share of targets reached")
    axes.set_xlim(1, timed["up_to"])
    axes.set_ylim(0, 1.02)
    _title(axes, "Time to target: solid in steps, dashed in seconds\nbeside each line: mean height in steps")
    return label_ends(axes, ends)


def _title(axes: Axes, words: str) -> None:
    axes.set_title(words, fontsize=9.5, color=FAINT, loc="left", pad=6)
