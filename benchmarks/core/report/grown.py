"""How the cost grows."""

from __future__ import annotations

from typing import Any

from benchmarks.core.fleet import OURS, OURS_WITHOUT_TAPE, PLAIN
from benchmarks.core.growth import LINEAR_FROM
from benchmarks.core.report.markdown import stolen, table
from benchmarks.core.results import Results
from benchmarks.core.statistics import Spread, nonlinearity

TITLES = {
    "coordinates": "Growth with coordinates (quadratics of 10, one thread)",
    "tasks": "Growth with tasks (MNIST MLP, one thread)",
    "unroll": "Growth with the unroll (1,000 quadratics of 10, one thread)",
    "threads": "Growth with threads (MNIST MLP; 10,000 quadratics of 10)",
}


def lines(results: Results) -> list[str]:
    text: list[str] = []
    for what, title in TITLES.items():
        found = results.get(f"growth/{what}")
        if found is not None:
            text += [f"### {title}", "", *_table(found["rows"], what), "", *_fit(found["rows"], what)]
            text += [stolen(found["stolen"]), ""]
    return text


def _table(rows: list[dict[str, Any]], what: str) -> list[str]:
    cells = []
    for row in rows:
        ours, plain, bare = row[OURS], row.get(PLAIN), row.get(OURS_WITHOUT_TAPE)
        spread = Spread.of([1e3 * seconds for seconds in ours["seconds"]])
        work = row["coordinates"] * row["unroll_steps"]
        cells.append(
            [
                f"{row['coordinates']:,}",
                f"{row['tasks']:,}",
                str(row["unroll_steps"]),
                str(row["threads"]),
                f"{spread:.1f}",
                f"{1e6 * spread.median / work:.0f}",
                f"{work / spread.median / 1e3:.2f} M",
                f"{work / spread.low / 1e3:.2f} M",
                "" if ours["megabytes"] is None else f"{ours['megabytes']:.0f}",
                "" if bare is None else f"{1e9 * Spread.of(bare['seconds']).median / work:.0f}",
                "" if bare is None or bare["megabytes"] is None else f"{bare['megabytes']:.0f}",
                "" if plain is None else f"{work / Spread.of(plain['seconds']).median / 1e6:.2f} M",
                "" if plain is None or plain["megabytes"] is None else f"{plain['megabytes']:.0f}",
            ]
        )
    header = ["coordinates", "tasks", "unroll", "threads", "ms a meta-step", "ns a coordinate-step"]
    header += ["coordinate-steps/s", "at best", "MB over idle", "ns without tape", "MB so"]
    header += ["plain PyTorch", "its MB"]
    shown = [i for i, name in enumerate(header) if name != "threads" or what == "threads"]
    shown = [i for i in shown if i < 9 or any(cell[i] for cell in cells)]
    return table([header[i] for i in shown], [[cell[i] for i in shown] for cell in cells])


def _fit(rows: list[dict[str, Any]], what: str) -> list[str]:
    """What proportional cost would be from LINEAR_FROM on: the mean cost of a coordinate, each size counting alike."""
    large = [row for row in rows if row["coordinates"] >= LINEAR_FROM]
    if what != "coordinates" or len(large) < 2:
        return []
    each = {row["coordinates"]: Spread.of(row[OURS]["seconds"]).median / row["coordinates"] for row in large}
    mean = sum(each.values()) / len(each)
    off = ", ".join(f"{size:,}: {1e6 * cost:.2f} us ({100 * (cost / mean - 1):+.1f} %)" for size, cost in each.items())
    text = f"A meta-step's cost for each coordinate, and how far that is from proportional: {off}."
    bare = {row["coordinates"]: row[OURS_WITHOUT_TAPE]["seconds"] for row in large if OURS_WITHOUT_TAPE in row}
    if len(bare) > 1:
        off_bare = 100 * nonlinearity(list(bare), [Spread.of(seconds).median for seconds in bare.values()])
        text += f" Without a tape, up to {max(bare):,}, the dearest is {off_bare:.1f} % over the cheapest."
    return [text, ""]
