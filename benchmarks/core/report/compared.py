"""The ceilings, and ours against the peers, problem by problem."""

from __future__ import annotations

from typing import Any

from benchmarks.core import ceilings
from benchmarks.core.fleet import OURS, OWN
from benchmarks.core.problem import Problem
from benchmarks.core.reference import TOLERANCE
from benchmarks.core.report.markdown import stolen, table, threaded
from benchmarks.core.results import Results, speedups
from benchmarks.core.statistics import Spread, least_ratio


def ceiling_lines(results: Results) -> list[str]:
    found = results.get("ceilings")
    if found is None:
        return []
    rows = [["torch sgemm 512x512x512", f"{found['sgemm_flops'] / 1e9:.1f} GFLOP/s"]]
    rows += [["torch sgemm 80x40x1280, a layer's gates", f"{found['gate_sgemm_flops'] / 1e9:.1f} GFLOP/s"]]
    if "fma_flops" in found:
        rows = [["fused multiply-adds (C, in registers)", f"{found['fma_flops'] / 1e9:.1f} GFLOP/s"], *rows]
        rows += [["sigmoid, 2^x and division", f"{found['sigmoids_by_division'] / 1e9:.2f} G/s"]]
        rows += [["sigmoid, 2^x and reciprocal estimate", f"{found['sigmoids_by_estimate'] / 1e9:.2f} G/s"]]
        if "sigmoids_as_kernel" in found:
            form = "sigmoid as our kernel has it: scaled, clamped, rounded by adding, division"
            rows += [[form, f"{found['sigmoids_as_kernel'] / 1e9:.2f} G/s"]]
    rows += [["torch.sigmoid", f"{found['torch_sigmoids'] / 1e9:.2f} G/s"]]
    for flop, name in ((ceilings.FLOP, "29.6 kFLOP"), (ceilings.FLOP_WITH_RECOMPUTE, "39.5 kFLOP, with recompute")):
        rate = ceilings.limit(found, flop) / 1e6
        rows.append([f"**limit**: {name} and 200 of the fastest activations a coordinate-step", f"{rate:.2f} M/s"])
    where = [] if "fma_flops" in found else ["No C compiler here: the limit is made of torch's own rates.", ""]
    return ["### Ceilings of one core", "", *table(["", "measured"], rows), "", *where]


def lines(results: Results, problem: Problem, threads: int, measured: dict[str, Any]) -> list[str]:
    faster = speedups(measured)
    limit = ceilings.limit(results["ceilings"]) * threads if "ceilings" in results else None
    ours = measured["peers"][OURS]["seconds"]
    rows = []
    for peer, found in measured["peers"].items():
        rate = Spread.of([1 / seconds for seconds in found["seconds"]])
        steps = problem.coordinate_steps * rate.median
        name = found["about"]["name"]
        rows.append(
            [
                f"**{name}**" if peer in OWN else name,
                f"{rate:.2f}",
                f"{steps / 1e6:.2f} M",
                "1" if peer == OURS else f"{faster[peer]:.2f}",
                "1" if peer == OURS else f"{least_ratio(found['seconds'], ours):.2f}",
                "" if limit is None else f"{100 * steps / limit:.0f} %",
                _memory(found),
                f"{found['compile_seconds']:.1f}",
                f"{found['difference']:.0e}" + ("" if found["difference"] <= TOLERANCE else " WRONG"),
            ]
        )
    header = ["", "meta-steps/s", "coordinate-steps/s", "ours is x", "by least times", "of the limit"]
    header += ["peak MB (over idle)", "compile s", "off float64"]
    words = [f"### {problem.title}, {threaded(threads)}", "", *table(header, rows)]
    words += [f"\nNot measured: {peer}: {why}." for peer, why in measured["missing"].items()]
    below = [_shares(results["ceilings"], problem, threads, ours)] if "ceilings" in results else []
    if threads == 1:
        busy = measured["peers"][OURS]["busy_seconds"]
        below.append(f"Ours had its core for {100 * sum(busy) / sum(ours):.0f} % of the time")
        share = "" if limit is None else f"; {100 * problem.coordinate_steps / Spread.of(busy).median / limit:.0f} %"
        below[-1] += f"{share} of the limit by the time that it had it." if share else "."
    return [*words, "", " ".join([*below, stolen(measured["stolen"])]).strip(), ""]


def peer_lines(results: Results) -> list[str]:
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
        'checked against its own definition. "Peak over idle": over the same process with its library, the data and '
        "the rule's weights loaded, and nothing of a run. Ranks of data parallelism own whole tasks, so that one task "
        "is never split.",
        "",
    ]


def _memory(found: dict[str, Any]) -> str:
    if found["peak_megabytes"] is None or found["base_megabytes"] is None:
        return ""
    return f"{found['peak_megabytes']:.0f} (+{found['peak_megabytes'] - found['base_megabytes']:.0f})"


def _shares(found: dict[str, Any], problem: Problem, threads: int, seconds: list[float]) -> str:
    rate = problem.coordinate_steps / Spread.of(seconds).median / threads  # coordinate-steps a second of one core
    flops = rate * ceilings.FLOP
    sentence = (
        f"Ours, a core: {flops / 1e9:.1f} GFLOP/s at 29.6 kFLOP a coordinate-step, without inner gradients and Adam; "
        f"{100 * flops / found['sgemm_flops']:.0f} % of torch's sgemm"
    )
    if "fma_flops" in found:
        sentence += f", {100 * flops / found['fma_flops']:.0f} % of the multiply-adds alone"
    again = rate / ceilings.limit(found, ceilings.FLOP_WITH_RECOMPUTE)
    return sentence + f"; {100 * again:.0f} % of the limit when the replay's recomputation counts as work."
