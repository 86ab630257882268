"""The picture of a family: mean loss on the held-out tasks, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from app.report.figures import COLORS
from benchmarks.core.environment import ROOT
from benchmarks.learned_vs_tuned.measure import NAMES, Row, as_array
from models.curves import Curves
from models.spec import FamilySpec
from models.tuning import Tuning


def draw(
    family: FamilySpec, rows: list[Row], tunings: dict[str, Tuning], baselines: dict[str, dict[str, Curves]]
) -> Path:
    """Where it was written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    plan = family.evaluation
    figure = Figure(figsize=(8, 4.5), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.085, 0.125, 0.70, 0.715))
    steps = np.arange(plan.horizon + 1)
    ends: list[tuple[float, str, str, bool]] = []
    for name, tuning in tunings.items():
        mean = as_array(baselines[name]["final"].losses).mean(axis=1)
        axes.plot(steps, mean, color=COLORS[name], linewidth=1.5, alpha=0.85)
        best = tuning.best_final
        text = f"{NAMES[name]} {best.learning_rate:.2g}" + ("" if best.schedule == "constant" else f", {best.schedule}")
        diverges = mean[-1] > mean[0]  # a tuned rate may still be too high for some of the test tasks
        ends.append((min(mean[-1], mean[0]), f"{text}: diverges" if diverges else text, COLORS[name], False))
    by_seed = np.stack([as_array(row.curves.losses).mean(axis=1) for row in rows])
    centre = np.median(by_seed, axis=0)
    axes.fill_between(steps, by_seed.min(axis=0), by_seed.max(axis=0), color=COLORS["learned"], alpha=0.22, linewidth=0)
    axes.plot(steps, centre, color=COLORS["learned"], linewidth=2.6)
    ends.append((centre[-1], "learned", COLORS["learned"], True))
    axes.set_yscale("log")
    axes.set_ylim(0.7 * min(value for value, *_ in ends), 3 * centre[0])
    axes.set_xlim(0, plan.horizon)
    axes.margins(y=0.03)
    _label_ends(axes, ends)
    axes.set_xlabel("step", color="#374151")
    axes.set_ylabel(f"mean loss over {plan.test_tasks} held-out tasks", color="#374151")
    axes.grid(True, which="major", color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors="#6b7280", which="both", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#9ca3af")
    figure.text(0.085, 0.935, family.title, fontsize=14, fontweight="bold", color="#111827")
    figure.text(
        0.085,
        0.878,
        f"A learned optimizer (median of {len(rows)} meta-seeds, band from the worst to the best) "
        "against tuned baselines",
        fontsize=9.5,
        color="#4b5563",
    )
    path = ROOT / "docs" / "images" / f"{family.name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return path


def _label_ends(axes: Any, ends: list[tuple[float, str, str, bool]]) -> None:
    """Names at the right end of their curves, pushed apart where curves end close together."""
    low, high = np.log10(axes.get_ylim())
    gap = 0.062 * (high - low)
    placed: list[float] = []
    for value, text, color, strong in sorted(ends):
        at = np.log10(value)
        at = max(at, placed[-1] + gap) if placed else at
        placed.append(at)
        axes.annotate(
            text,
            (1.012, (at - low) / (high - low)),
            xycoords="axes fraction",
            va="center",
            fontsize=10.5 if strong else 9,
            fontweight="bold" if strong else "normal",
            color=color,
            annotation_clip=False,
        )
