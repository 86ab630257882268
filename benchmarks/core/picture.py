"""The bars: meta-steps a second of every peer, ours at 1, with how many times as fast ours is."""

from __future__ import annotations

from pathlib import Path

from benchmarks.core.fleet import OURS
from benchmarks.core.problem import COMPARED
from benchmarks.core.report import Results, compared, speedups
from benchmarks.core.statistics import Spread

_COLOURS = {"ours": "#2a7f62", "plain_torch": "#c65d3b", "jax_scan": "#5b7db1", "learned_optimization": "#9a8fb5"}


def draw(results: Results, path: Path) -> None:
    """One panel a problem, for the fewest threads that were measured."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    threads = min(int(name.split("/")[2]) for name in results if name.startswith("compare/"))
    panels = [(problem, found) for problem in COMPARED if (found := compared(results, problem, threads)) is not None]
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.2), squeeze=False, layout="constrained")
    for axis, (problem, measured) in zip(axes[0], panels, strict=True):
        faster = speedups(measured)
        for place, (peer, found) in enumerate(measured["peers"].items()):
            rate = Spread.of([1 / seconds for seconds in found["seconds"]])
            error = [[rate.median - rate.low], [rate.high - rate.median]]
            axis.barh(place, rate.median, color=_COLOURS[peer], xerr=error, error_kw={"lw": 1, "ecolor": "#555"})
            label = f"{rate.median:.3g}/s" + ("" if peer == OURS else f"   ours is {faster[peer].median:.1f}x")
            axis.annotate(label, (rate.high, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9)
        axis.set_yticks(range(len(measured["peers"])), [found["about"]["name"] for found in measured["peers"].values()])
        axis.invert_yaxis()
        axis.set_xlim(0, axis.get_xlim()[1] * 1.75)  # room for the labels
        axis.set_title(problem.title, fontsize=9)
        axis.set_xlabel("meta-steps a second")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"Meta-training, {threads} thread{'s' if threads > 1 else ''}, {results['machine']['processor']}", fontsize=10
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
