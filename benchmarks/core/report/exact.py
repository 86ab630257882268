"""Meta-gradients with second derivatives: ours against the peers, on the tasks of the families' recipes."""

from __future__ import annotations

from benchmarks.core.fleet import OURS
from benchmarks.core.problem import DIGITS_EXACT, EXACT, MNIST_EXACT
from benchmarks.core.reference import TOLERANCE
from benchmarks.core.report.markdown import table
from benchmarks.core.results import Results, is_right, speedups
from benchmarks.core.statistics import Spread, least_ratio

MARKS = ("<!-- core-exact:begin -->", "<!-- core-exact:end -->")
ASKED_MILLISECONDS = {DIGITS_EXACT: 25, MNIST_EXACT: 60}
"""A meta-step on one core takes at most that."""


def lines(results: Results, command: str, date: str) -> list[str]:
    """The section, or nothing where none of it was measured."""
    measured = [(problem, results.get(f"exact/{problem.slug}")) for problem in EXACT]
    if not any(found for _, found in measured):
        return []
    machine = results["machine"]
    rows: list[list[str]] = []
    missing: dict[str, str] = {}
    for problem, found in measured:
        if found is None:
            continue
        missing |= found["missing"]
        faster, ours = speedups(found), found["peers"][OURS]["seconds"]
        for peer, each in found["peers"].items():
            own = peer == OURS
            wrong = "" if is_right(found, peer) else " WRONG"
            rows.append(
                [
                    f"{problem.rule}: {problem.title}" if own else "",
                    f"**{each['about']['name']}**" if own else each["about"]["name"],
                    f"{Spread.of([1e3 * seconds for seconds in each['seconds']]):.1f}",
                    f"{1e3 * min(each['busy_seconds']):.1f}",
                    "1" if own else f"{faster[peer]:.2f}",
                    "1" if own else f"{least_ratio(each['seconds'], ours):.2f}",
                    "" if each["peak_megabytes"] is None else f"{each['peak_megabytes']:.0f}",
                    f"{each['compile_seconds']:.1f}",
                    f"{each['difference']:.0e}{wrong}",
                ]
            )
    header = ["", "who", "ms a meta-step", "of computing, least", "ours is x", "by least times", "peak MB", "compile s"]
    return [
        "## The training core: meta-gradients with second derivatives",
        "",
        f"`{command}`, {date}. {machine['processor']}, {machine['cores']} cores, {machine['flags']}; torch "
        f"{machine['torch']}; commit {machine['commit']}; load average before: {machine['load before']}.",
        "",
        "One meta-step is 20 inner steps, the exact meta-gradient and Adam, on one core. Plain PyTorch and JAX go back "
        "through everything, the optimizee included, with rules written anew from their documentation; each runs in a "
        "process of its own, in turn within one run. Ours goes back with one product of a Hessian and a vector a step. "
        "Milliseconds are medians with (least-most), ratios pair by pair and by least times. "
        f'"Off float64" is the largest difference from autograd in float64, {TOLERANCE:.0e} is allowed. '
        "Images are synthetic, of the real shapes.",
        "",
        *table([*header, "off float64"], rows),
        "",
        *(f"Not measured: {peer}: {why}.\n" for peer, why in missing.items()),
        *_verdicts(results),
    ]


def _verdicts(results: Results) -> list[str]:
    """What was asked for, held against the least time that a meta-step computed."""
    said = []
    for problem, asked in ASKED_MILLISECONDS.items():
        found = results.get(f"exact/{problem.slug}")
        if found is not None:
            least = 1e3 * min(found["peers"][OURS]["busy_seconds"])
            reached = "reached" if least <= asked else "NOT REACHED"
            said.append(f"- {problem.title}, {problem.rule}: at most {asked} ms asked for, {least:.1f}: {reached}.")
    return said
