"""Tables that read well in a terminal and are valid Markdown."""

from __future__ import annotations


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Aligned; the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return [line(header), rule, *(line(row) for row in rows)]


def threaded(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def stolen(share: float | None) -> str:
    """A sentence on what other machines on the host took meanwhile, or nothing."""
    return "" if share is None else f"Stolen by other machines on the host meanwhile: {100 * share:.1f} %."
