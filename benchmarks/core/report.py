"""From measurements to words: a table for the terminal, a section for RESULTS.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.core import ceilings
from benchmarks.core.fleet import OURS, PLAIN
from benchmarks.core.problem import COMPARED, Problem
from benchmarks.core.reference import TOLERANCE
from benchmarks.core.statistics import Spread, ratios

BEGIN, END = "<!-- core:begin -->", "<!-- core:end -->"
Results = dict[str, Any]
"""Section name -> what it measured: "machine", "ceilings", "compare/<slug>/<threads>", "growth/<what>",
"step/<parameters>"; see main."""


def compared(results: Results, problem: Problem, threads: int) -> dict[str, Any] | None:
    found: dict[str, Any] | None = results.get(f"compare/{problem.slug}/{threads}")
    return found


def speedups(measured: dict[str, Any]) -> dict[str, Spread]:
    """Peer -> how many times as fast as it we are, pair by pair."""
    ours = measured["peers"][OURS]["seconds"]
    return {peer: ratios(found["seconds"], ours) for peer, found in measured["peers"].items() if peer != OURS}


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Aligned, and valid Markdown; the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return [line(header), rule, *(line(row) for row in rows)]


def lines(results: Results, command: str, date: str) -> list[str]:
    """The whole report, as Markdown."""
    machine = results["machine"]
    text = [
        "## The training core",
        "",
        f"`{command}`, {date}. {machine['processor']}, {machine['cores']} cores, {machine['flags']}; "
        f"{machine['system']}, Python {machine['python']}, torch {machine['torch']}; commit "
        f"{machine['commit']}; load average before: {machine['load before']}.",
        "",
        "One meta-step is 20 inner steps, their meta-gradient and Adam. Peers run in processes of their own, bound to "
        "the same cores, in turn within one run; medians with (least-most), ratios pair by pair. A coordinate-step is "
        "one coordinate through the 2x20 LSTM once, forward and backward. Images are synthetic, of the real shapes.",
        "",
    ]
    text += _ceilings(results)
    for threads in _threads(results):
        for problem in COMPARED:
            measured = compared(results, problem, threads)
            if measured is not None:
                text += _comparison(results, problem, threads, measured)
    text += _peers(results)
    for what in ("coordinates", "tasks", "unroll"):
        text += _growth(results, what)
    return text + _steps(results)


def written(document: str, section: list[str]) -> str:
    """`document` with our section replaced, or added at its end; what stands around it stays as it is."""
    ours = "\n".join([BEGIN, *section, END])
    before, begin, rest = document.partition(BEGIN)
    if not begin:
        return (document.rstrip("\n") + "\n\n" if document.strip() else "# Results\n\n") + ours + "\n"
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the document has {BEGIN} without {END}: put the end mark back where our section ends")
    return before + ours + after


def write(path: Path, section: list[str]) -> None:
    path.write_text(written(path.read_text() if path.exists() else "", section))


def _threads(results: Results) -> list[int]:
    return sorted({int(name.split("/")[2]) for name in results if name.startswith("compare/")})


def _ceilings(results: Results) -> list[str]:
    found = results.get("ceilings")
    if found is None:
        return []
    where = "C, in registers" if "fma_flops" in found else "torch, no compiler here"
    rows = [["torch sgemm 512x512x512", f"{found['sgemm_flops'] / 1e9:.1f} GFLOP/s"]]
    rows += [["torch sgemm 80x40x1280, a layer's gates", f"{found['gate_sgemm_flops'] / 1e9:.1f} GFLOP/s"]]
    if "fma_flops" in found:
        rows = [[f"fused multiply-adds ({where})", f"{found['fma_flops'] / 1e9:.1f} GFLOP/s"], *rows]
        rows += [["sigmoid, 2^x and division", f"{found['sigmoids_by_division'] / 1e9:.2f} G/s"]]
        rows += [["sigmoid, 2^x and reciprocal estimate", f"{found['sigmoids_by_estimate'] / 1e9:.2f} G/s"]]
    rows += [["torch.sigmoid", f"{found['torch_sigmoids'] / 1e9:.2f} G/s"]]
    for flop, name in ((ceilings.FLOP, "29.6 kFLOP"), (ceilings.FLOP_WITH_RECOMPUTE, "39.5 kFLOP, with recompute")):
        rate = ceilings.limit(found, flop) / 1e6
        rows.append([f"**limit**: {name} and 200 activations a coordinate-step", f"{rate:.2f} M/s"])
    return ["### Ceilings of one core", "", *table(["", "measured"], rows), ""]


def _comparison(results: Results, problem: Problem, threads: int, measured: dict[str, Any]) -> list[str]:
    faster = speedups(measured)
    limit = ceilings.limit(results["ceilings"]) * threads if "ceilings" in results else None
    rows = []
    for peer, found in measured["peers"].items():
        rate = Spread.of([1 / seconds for seconds in found["seconds"]])
        steps = problem.coordinate_steps * rate.median
        over = None if found["peak_megabytes"] is None else found["peak_megabytes"] - found["base_megabytes"]
        name = found["about"]["name"]
        rows.append(
            [
                f"**{name}**" if peer == OURS else name,
                f"{rate:.2f}",
                f"{steps / 1e6:.2f} M",
                "1" if peer == OURS else f"{faster[peer]:.2f}",
                "" if limit is None else f"{100 * steps / limit:.0f} %",
                "" if over is None else f"{found['peak_megabytes']:.0f} (+{over:.0f})",
                f"{found['compile_seconds']:.1f}",
                f"{found['difference']:.0e}" + ("" if found["difference"] <= TOLERANCE else " WRONG"),
            ]
        )
    header = ["", "meta-steps/s", "coordinate-steps/s", "ours is x", "of the limit", "peak MB (over idle)"]
    header += ["compile s", "off float64"]
    words = [f"### {problem.title}, {threads} thread{'s' if threads > 1 else ''}", "", *table(header, rows)]
    words += [f"\nNot measured: {peer}: {why}." for peer, why in measured["missing"].items()]
    if OURS in measured["peers"] and "ceilings" in results:
        rate = problem.coordinate_steps / Spread.of(measured["peers"][OURS]["seconds"]).median
        words += ["", _shares(results["ceilings"], rate / threads)]
    return [*words, ""]


def _shares(found: dict[str, Any], rate: float) -> str:
    """rate: coordinate-steps a second of ours on one core."""
    flops = rate * ceilings.FLOP
    sentence = (
        f"Ours, a core: {flops / 1e9:.1f} GFLOP/s at 29.6 kFLOP a coordinate-step, without inner gradients and "
        f"Adam; "
        f"{100 * flops / found['sgemm_flops']:.0f} % of torch's sgemm"
    )
    if "fma_flops" in found:
        sentence += f", {100 * flops / found['fma_flops']:.0f} % of the multiply-adds alone"
    again = rate / ceilings.limit(found, ceilings.FLOP_WITH_RECOMPUTE)
    return sentence + f"; {100 * again:.0f} % of the limit when the replay's recomputation counts as work."


def _peers(results: Results) -> list[str]:
    seen: dict[str, str] = {}
    for name, measured in results.items():
        if name.startswith("compare/"):
            for found in measured["peers"].values():
                about = found["about"]
                seen.setdefault(about["name"], f"- {about['name']}: {about['versions']}; {about['settings']}")
    if not seen:
        return []
    return [
        *seen.values(),
        '- "off float64" is the largest difference of the first window\'s meta-gradient from autograd in float64 on '
        f"the same weights and tasks, over the largest value, for each weight tensor; {TOLERANCE:.0e} is allowed. "
        "learned_optimization counts the losses at theta_0 .. theta_19, the others those at theta_1 .. theta_20; it is "
        'checked against its own definition. "Peak over idle": over the same process with its library and data loaded.',
        "",
    ]


def _growth(results: Results, what: str) -> list[str]:
    rows = results.get(f"growth/{what}")
    if not rows:
        return []
    largest = max(row[OURS]["rate"][0] for row in rows)
    cells = []
    for row in rows:
        ours, plain = row[OURS], row.get(PLAIN)
        milliseconds = Spread.of([1e3 * seconds for seconds in ours["seconds"]])
        cells.append(
            [
                f"{row['coordinates']:,}",
                f"{row['tasks']:,}",
                str(row["unroll_steps"]),
                f"{milliseconds:.1f}",
                f"{ours['rate'][0] / 1e6:.2f} M",
                f"{ours['rate'][0] / largest:.2f}",
                "" if ours["megabytes"] is None else f"{ours['megabytes']:.0f}",
                "" if plain is None else f"{plain['rate'][0] / 1e6:.2f} M",
                "" if plain is None or plain["megabytes"] is None else f"{plain['megabytes']:.0f}",
            ]
        )
    header = ["coordinates", "tasks", "unroll", "ms a meta-step", "coordinate-steps/s", "of the best"]
    header += ["MB over idle", "plain PyTorch", "its MB"]
    title = {
        "coordinates": "Growth with coordinates (quadratics of 10, one thread)",
        "tasks": "Growth with tasks (MNIST MLP, one thread)",
        "unroll": "Growth with the unroll (1,000 quadratics of 10, one thread)",
    }[what]
    return [f"### {title}", "", *table(header, cells), ""]


def _steps(results: Results) -> list[str]:
    sizes = sorted(int(name.split("/")[1]) for name in results if name.startswith("step/"))
    if not sizes:
        return []
    rows, notes = [], []
    for size in sizes:
        found = results[f"step/{size}"]
        seconds = found["seconds"]

        def cell(name: str, seconds: dict[str, list[float]] = seconds) -> str:
            return f"{Spread.of([1e3 * each for each in seconds[name]]):.2f}" if name in seconds else "-"

        def against(name: str, seconds: dict[str, list[float]] = seconds) -> str:
            both = name in seconds and "ours" in seconds
            return f"{ratios(seconds[name], seconds['ours']):.2f}" if both else "-"

        rows.append(
            [f"{found['coordinates']:,}", cell("ours"), cell("plain"), cell("adam"), against("plain"), against("adam")]
        )
        notes += [f"{size:,} parameters, {name}: left out, {why}." for name, why in found["left_out"].items()]
    header = [
        "parameters",
        "LearnedOptimizer ms",
        "plain nn.LSTM ms",
        "Adam (foreach) ms",
        "nn.LSTM / ours",
        "Adam / ours",
    ]
    title = "`LearnedOptimizer.step` of a model of 20 weights and 20 biases, one thread"
    return [f"### {title}", "", *table(header, rows), *([""] if notes else []), *notes, ""]
