"""Writes measurements down: the whole report for the terminal, and our section of RESULTS.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.core.problem import COMPARED
from benchmarks.core.report import checked, grown, verdicts
from benchmarks.core.report import compared as comparison
from benchmarks.core.results import Results, compared, threads_compared

BEGIN, END = "<!-- core:begin -->", "<!-- core:end -->"


def lines(results: Results, failed: Mapping[str, str], command: str, date: str) -> list[str]:
    """The whole report, as Markdown. failed: section -> why."""
    machine = results["machine"]
    text = [
        "## The training core",
        "",
        f"`{command}`, {date}. {machine['processor']}, {machine['cores']} cores, {machine['flags']}; "
        f"{machine['system']}, Python {machine['python']}, torch {machine['torch']}; commit "
        f"{machine['commit']}; load average before: {machine['load before']}.",
        "",
        "One meta-step is 20 inner steps, their meta-gradient and Adam. Peers run in processes of their own, bound to "
        "the same cores, in turn within one run; medians with (least-most), ratios pair by pair, and by least times: "
        "the moments in which nothing disturbed either. A coordinate-step is one coordinate through the 2x20 LSTM "
        "once, forward and backward. Images are synthetic, of the real shapes.",
        "",
        *[f"FAILED, and left out: `{name}`: {why}\n" for name, why in failed.items()],
    ]
    text += verdicts.lines(results)
    text += comparison.ceiling_lines(results)
    for threads in threads_compared(results):
        for problem in COMPARED:
            measured = compared(results, problem, threads)
            if measured is not None:
                text += comparison.lines(results, problem, threads, measured)
    text += comparison.peer_lines(results)
    text += checked.share_lines(results)
    text += checked.accuracy_lines(results)
    text += checked.first_step_lines(results)
    text += grown.lines(results)
    return text + checked.optimizer_step_lines(results) + checked.cuda_lines()


def written(document: str, section: list[str], marks: tuple[str, str] = (BEGIN, END)) -> str:
    """`document` with the section between `marks` replaced, or added at its end; what stands around it stays as it
    is."""
    first, last = marks
    ours = "\n".join([first, *section, last])
    before, begin, rest = document.partition(first)
    if not begin:
        return (document.rstrip("\n") + "\n\n" if document.strip() else "# Results\n\n") + ours + "\n"
    _, end, after = rest.partition(last)
    if not end:
        raise ValueError(f"the document has {first} without {last}: put the end mark back where our section ends")
    return before + ours + after


def write(path: Path, section: list[str], marks: tuple[str, str] = (BEGIN, END)) -> None:
    path.write_text(written(path.read_text() if path.exists() else "", section, marks))
