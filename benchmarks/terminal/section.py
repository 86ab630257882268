"""The section of RESULTS.md."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from benchmarks.core.machine import described
from benchmarks.terminal import help_times

if TYPE_CHECKING:
    from benchmarks.terminal.help_times import Times
    from benchmarks.terminal.main import Played

MARKS = ("<!-- terminal -->", "<!-- end of terminal -->")


def head() -> list[str]:
    """Title, command, machine."""
    machine = described()
    return [
        "## The command line in a terminal",
        "",
        f"`./run bench terminal`, {datetime.now(UTC):%Y-%m-%d}, commit {machine['commit']}, {machine['cores']} cores "
        f"({machine['processor']}, shared; load average before: {machine['load before']}), Python {machine['python']}.",
        "",
    ]


def scenes(played: Sequence[Played], widths: Sequence[int]) -> list[str]:
    """A row a scene."""
    shown = " and ".join(map(str, widths))
    right = sum(each.right for each in played)
    rows = [
        f"| {each.scene.name} | `{each.scene.command}` | {each.scene.code} | {', '.join(map(str, each.codes))} | "
        f"{each.broken} | {each.as_json} |"
        for each in played
    ]
    return [
        f"Each command ran against a real service in a pseudo-terminal of {shown} columns; what it showed is in "
        f"`var/terminal/` as text, SVG and PNG. {right} of {len(played)} are as they must be. Broken lines are those "
        "that the terminal had to break because they were longer than it is wide.",
        "",
        f"| scene | command | exit code wanted | found at {shown} columns | broken lines | `--json` |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def help_pages(times: Sequence[Times], heavy: Sequence[str]) -> list[str]:
    """A row a page."""
    nothing, libraries, *pages = times
    slowest = max(pages, key=lambda each: each.least)
    reached = slowest.least < help_times.TARGET_SECONDS and not heavy
    rows = [
        f"| `{each.name}` | {1000 * each.least:.0f} | {1000 * statistics.median(each.seconds):.0f} | "
        f"{1000 * statistics.median(each.computed):.0f} | {help_times.ratio(each, nothing):.1f} | "
        f"{help_times.ratio(each, libraries):.2f} |"
        for each in times
    ]
    return [
        "### Help",
        "",
        f"{len(nothing.seconds)} rounds, all commands in turn. Wanted: under {1000 * help_times.TARGET_SECONDS:.0f} "
        f"ms, without torch or httpx. Slowest of the fastest runs: {1000 * slowest.least:.0f} ms (`{slowest.name}`); "
        f"imported: {', '.join(heavy) or 'neither torch, httpx nor numpy'}. {'Reached' if reached else 'NOT REACHED'}.",
        "",
        "| command | least ms | median ms | core ms | times `python -c pass` | times `import typer, rich` |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
