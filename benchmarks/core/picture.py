"""The bars: every peer as a share of what the machine could do at most, so that ours, theirs and the limit are seen in
one look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.core import ceilings
from benchmarks.core.fleet import OURS, OWN
from benchmarks.core.problem import COMPARED, Problem
from benchmarks.core.report.markdown import threaded
from benchmarks.core.results import Results, compared, speedups, threads_compared
from benchmarks.core.statistics import Spread

_OURS, _THEIRS, _INK, _PALE = "#1f7a5c", "#b9bfc8", "#2b2f36", "#eef1f4"


def draw(results: Results, path: Path) -> bool:
    """One row of panels for each thread count, one panel a problem. False, and nothing drawn, when there is nothing to
    draw: no comparison, or no limit to hold it against."""
    rows = threads_compared(results)
    problems = [problem for problem in COMPARED if any(compared(results, problem, count) for count in rows)]
    if not problems or "ceilings" not in results:
        return False
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    size = (4.6 * len(problems), 2.5 * len(rows) + 0.7)
    figure, axes = plt.subplots(len(rows), len(problems), figsize=size, squeeze=False, layout="constrained")
    for threads, line in zip(rows, axes, strict=True):
        limit = ceilings.limit(results["ceilings"]) * threads
        for problem, axis in zip(problems, line, strict=True):
            measured = compared(results, problem, threads)
            if measured is None:
                axis.set_axis_off()
                continue
            _panel(axis, problem, measured, limit, threads)
    figure.suptitle(
        "Meta-training speed as a share of the fp32 limit of the cores that are used: "
        f"{ceilings.limit(results['ceilings']) / 1e6:.2f} M coordinate-steps/s a core\n"
        f"{results['machine']['processor']}, {results['machine']['cores']} cores",
        fontsize=10,
        color=_INK,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True


def _panel(axis: Any, problem: Problem, measured: dict[str, Any], limit: float, threads: int) -> None:
    faster = speedups(measured)
    axis.axvspan(0, 100, color=_PALE, zorder=0, lw=0)
    for place, (peer, found) in enumerate(measured["peers"].items()):
        share = Spread.of([100 * problem.coordinate_steps / seconds / limit for seconds in found["seconds"]])
        own = peer in OWN
        error = [[share.median - share.low], [share.high - share.median]]
        colour = _OURS if own else _THEIRS
        axis.barh(place, share.median, 0.7, color=colour, xerr=error, error_kw={"lw": 0.8, "ecolor": "#666"}, zorder=2)
        rate = 1 / Spread.of(found["seconds"]).median
        label = f"{share.median:.0f} %, {rate:.3g} meta-steps/s"
        if not own:
            label += f"; ours is {faster[peer].median:.1f}x"
        weight = "bold" if peer == OURS else "normal"
        # Within a long bar, beside a short one: the labels stay between 0 and the limit.
        long_ = share.median > 55
        axis.annotate(
            label,
            (1.5 if long_ else share.high, place),
            xytext=(4, 0), textcoords="offset points", va="center", fontsize=8, weight=weight,
            color="white" if long_ and own else _INK, zorder=3,
        )  # fmt: skip
    axis.axvline(100, color=_INK, lw=1.5, zorder=2)
    axis.set_yticks(
        range(len(measured["peers"])), [found["about"]["name"] for found in measured["peers"].values()], fontsize=8
    )
    axis.invert_yaxis()
    axis.set_xlim(0, 104)
    axis.set_xticks(range(0, 101, 25), [f"{tick}" if tick < 100 else "limit" for tick in range(0, 101, 25)], fontsize=8)
    axis.set_xlabel("% of the limit", fontsize=8)
    axis.set_title(f"{problem.name}, {problem.coordinates:,} coordinates, {threaded(threads)}", fontsize=9, color=_INK)
    axis.tick_params(length=0)
    axis.spines[["top", "right", "left", "bottom"]].set_visible(False)
