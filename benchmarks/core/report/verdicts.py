"""The issue's table: what must be shown, what was measured, and whether that is enough. Nothing here is typed by hand:
every verdict is a comparison of a median with its target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.core import ceilings
from benchmarks.core.fleet import OURS, PLAIN
from benchmarks.core.growth import LINEAR_FROM, LINEAR_TO
from benchmarks.core.problem import MLP, QUADRATICS, Problem
from benchmarks.core.report.markdown import table, threaded
from benchmarks.core.results import (
    JAX_PEERS,
    Results,
    compared,
    is_right,
    quickest_jax,
    quickest_own,
    speedups,
    threads_compared,
    worst_of,
)
from benchmarks.core.statistics import Spread, badness, least_ratio, nonlinearity

NOT_MEASURED = "not measured"
WRONG = "WRONG"


@dataclass(frozen=True)
class Verdict:
    """One row. `measured` is None where nothing was; `more_is_better` says on which side of the target it has to be;
    `aim` None: there is the one target; `right` False: a result took part that is wrong, however fast it was; `whole`
    False: what has to be in it was not measured."""

    what: str
    at_least: float
    aim: float | None
    measured: float | None
    unit: str = "x"
    more_is_better: bool = True
    note: str = ""
    right: bool = True
    whole: bool = True

    @property
    def said(self) -> str:
        if self.measured is None:
            return NOT_MEASURED
        if not self.right:
            return WRONG
        if not self.whole and self._meets(self.at_least):
            return "not all measured"
        if self.aim is not None and self._meets(self.aim):
            return "aim reached"
        if not self._meets(self.at_least):
            return "NOT REACHED"
        return "reached" if self.aim is None else "reached, the aim is not"

    def number(self, value: float) -> str:
        return f"{value:.3g}{'' if self.unit == 'x' else ' '}{self.unit}" if self.unit else f"{value:.0e}"

    def _meets(self, target: float) -> bool:
        assert self.measured is not None
        return self.measured >= target if self.more_is_better else self.measured <= target


def lines(results: Results) -> list[str]:
    rows = []
    for verdict in verdicts(results):
        measured = "-" if verdict.measured is None else verdict.number(verdict.measured)
        aim = "" if verdict.aim is None else verdict.number(verdict.aim)
        rows.append([verdict.what, verdict.number(verdict.at_least), aim, measured, verdict.note, verdict.said])
    header = ["", "at least", "aim", "measured", "range; by least times", "verdict"]
    return ["### What was to be shown", "", *table(header, rows), ""]


def verdicts(results: Results) -> Iterator[Verdict]:
    for problem in (MLP, QUADRATICS):
        yield _against_plain(results, problem, 1, 3.5, 6.0)
    for problem in (MLP, QUADRATICS):
        yield _against_plain(results, problem, 2, 4.0, 6.0)
    for threads in threads_compared(results) or [1]:
        for problem in (MLP, QUADRATICS):
            yield _against_jax(results, problem, threads)
    for problem in (MLP, QUADRATICS):
        yield _share_of_the_limit(results, problem)
    yield _memory(results)
    yield _linear(results)
    yield _step(results)
    yield from _accuracy(results)
    yield _first_step(results)


def _against_plain(results: Results, problem: Problem, threads: int, at_least: float, aim: float) -> Verdict:
    how = threaded(threads) if threads == 1 else f"{threads} threads or processes"
    return _faster(f"{problem.name} against plain PyTorch, {how}", results, problem, threads, PLAIN, at_least, aim)


def _against_jax(results: Results, problem: Problem, threads: int) -> Verdict:
    measured = compared(results, problem, threads)
    best = None if measured is None else quickest_jax(measured)
    name = "the best JAX variant" if measured is None or best is None else measured["peers"][best]["about"]["name"]
    what = f"{problem.name} against {name}, {threaded(threads)}"
    verdict = _faster(what, results, problem, threads, best, 3.5, 5.0)
    missing = [] if measured is None else [peer for peer in JAX_PEERS if peer not in measured["peers"]]
    notes = [verdict.note] if verdict.note else []
    notes += [f"without {' and '.join(missing)}"] if missing else []
    return replace(verdict, note="; ".join(notes))


def _faster(
    what: str, results: Results, problem: Problem, threads: int, peer: str | None, at_least: float, aim: float
) -> Verdict:
    measured = compared(results, problem, threads)
    if measured is None or peer is None or peer not in measured["peers"]:
        return Verdict(what, at_least, aim, None)
    own = quickest_own(measured)
    spread = speedups(measured, own)[peer]
    least = least_ratio(measured["peers"][peer]["seconds"], measured["peers"][own]["seconds"])
    with_ = "" if own == OURS else "; in processes"
    note = f"{spread.low:.2f}-{spread.high:.2f}; {least:.2f}{with_}"
    right = is_right(measured, own) and is_right(measured, peer)
    return Verdict(what, at_least, aim, spread.median, note=note, right=right)


def _share_of_the_limit(results: Results, problem: Problem) -> Verdict:
    what = f"share of the fp32 limit, {problem.name}, 1 thread"
    measured = compared(results, problem, 1)
    if measured is None or "ceilings" not in results:
        return Verdict(what, 66.0, 80.0, None, "%")
    limit = ceilings.limit(results["ceilings"])
    seconds = Spread.of(measured["peers"][OURS]["seconds"])
    low, middle, high = (
        100 * problem.coordinate_steps / each / limit for each in (seconds.high, seconds[0], seconds.low)
    )
    right = is_right(measured, OURS)
    return Verdict(what, 66.0, 80.0, middle, "%", note=f"{low:.0f}-{high:.0f}; {high:.0f}", right=right)


def _memory(results: Results) -> Verdict:
    what = "peak RSS over a process with torch and data, MLP"
    measured = compared(results, MLP, 1)
    if measured is None:
        return Verdict(what, 130.0, 60.0, None, "MB", more_is_better=False)
    ours = measured["peers"][OURS]
    if ours["peak_megabytes"] is None or ours["base_megabytes"] is None:
        return Verdict(what, 130.0, 60.0, None, "MB", more_is_better=False)
    added, right = ours["peak_megabytes"] - ours["base_megabytes"], is_right(measured, OURS)
    return Verdict(what, 130.0, 60.0, added, "MB", more_is_better=False, right=right)


def _linear(results: Results) -> Verdict:
    what = f"cost of a coordinate, dearest over cheapest, {LINEAR_FROM:,} to {LINEAR_TO:,}"
    rows = [row for row in _rows(results, "coordinates") if LINEAR_FROM <= row["coordinates"] <= LINEAR_TO]
    if not {LINEAR_FROM, LINEAR_TO} <= {row["coordinates"] for row in rows}:
        return Verdict(what, 15.0, None, None, "%", more_is_better=False)
    sizes = [row["coordinates"] for row in rows]
    middle = nonlinearity(sizes, [Spread.of(row[OURS]["seconds"]).median for row in rows])
    least = nonlinearity(sizes, [min(row[OURS]["seconds"]) for row in rows])
    busy = nonlinearity(sizes, [Spread.of(row[OURS]["busy_seconds"]).median for row in rows])
    return Verdict(
        what,
        15.0,
        None,
        100 * middle,
        "%",
        more_is_better=False,
        note=f"by least times {100 * least:.0f}, by processor time {100 * busy:.0f}",
    )


def _step(results: Results) -> Verdict:
    what = "step of a 1,000,000-parameter model against plain nn.LSTM"
    found = results.get("step/1000000")
    if found is None or not {"ours", "plain"} <= found["seconds"].keys():
        return Verdict(what, 4.0, 8.0, None)
    ours, plain = found["seconds"]["ours"], found["seconds"]["plain"]
    spread = Spread.of([theirs / mine for theirs, mine in zip(plain, ours, strict=True)])
    note = f"{spread.low:.2f}-{spread.high:.2f}; {least_ratio(plain, ours):.2f}"
    return Verdict(what, 4.0, 8.0, spread.median, note=note)


def _accuracy(results: Results) -> Iterator[Verdict]:
    section = results.get("accuracy", {})
    rows: list[dict[str, Any]] = section.get("rows", [])
    for precision, allowed in (("float64", 1e-12), ("float32", 1e-5)):
        what = f"every {precision} backend against the reference, worst weight tensor or update"
        found = [(worst_of(row), row) for row in rows if row["dtype"] == precision]
        if not found:
            yield Verdict(what, allowed, None, None, "", more_is_better=False)
            continue
        worst, row = max(found, key=lambda pair: badness(pair[0]))
        names = " and ".join(sorted({row["backend"].split(",")[0] for _, row in found}))
        whole = precision != "float32" or "native" not in section.get("missing", {})
        note = f"{row['backend']}; measured: {names}"
        yield Verdict(what, allowed, None, worst, "", more_is_better=False, note=note, whole=whole)


def _first_step(results: Results) -> Verdict:
    what = "POST to first training step, idle warm worker"
    found = results.get("first_step")
    if found is None:
        return Verdict(what, 1.0, 0.3, None, "s", more_is_better=False)
    spread = Spread.of(found["received"])
    note = f"{spread.low:.2f}-{spread.high:.2f} of {len(found['received'])}; worst {spread.high:.2f}"
    return Verdict(what, 1.0, 0.3, spread.median, "s", more_is_better=False, note=note)


def _rows(results: Results, what: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = results.get(f"growth/{what}", {}).get("rows", [])
    return rows
