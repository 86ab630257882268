"""A bar for a job that is waited for: below the cell of a notebook, or in a line on stderr, with no other package."""

from __future__ import annotations

import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradsmith.types import Job

_CELLS = 24
_SECONDS_BETWEEN_LINES = 10.0  # where stderr is no terminal


class Bar:
    """Shows the job that it is called with."""

    def __init__(self) -> None:
        self._display = _notebook()
        self._handle: Any = None
        self._began = time.monotonic()
        self._last = -_SECONDS_BETWEEN_LINES
        self._drawn = ""
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn and self._terminal and self._display is None:
            print(file=sys.stderr)

    def __call__(self, job: Job) -> None:
        spent = time.monotonic() - self._began
        if self._display is not None:
            from gradsmith.html import bar

            shown = _Html(bar(job, spent))
            if self._handle is None:
                self._handle = self._display(shown, display_id=True)
            else:
                self._handle.update(shown)
            return
        text = line(job, spent)
        if self._terminal:
            print(f"\r{text:<{len(self._drawn)}}", end="", file=sys.stderr, flush=True)
            self._drawn = text
        elif job.finished or time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            print(text, file=sys.stderr, flush=True)


def line(job: Job, seconds: float) -> str:
    """The bar as text. seconds: since waiting began"""
    step, total = job.progress.step, job.progress.total
    share = 1.0 if job.status == "succeeded" else min(step / total, 1.0) if total else 0.0
    full = round(share * _CELLS)
    parts = [f"{job.family} {job.kind}", f"{'█' * full}{'░' * (_CELLS - full)} {share:4.0%}"]
    parts.append(f"{step}/{total}" if total else "")
    parts.append(job.status if job.status != "running" else "")
    parts.append(duration(seconds))
    parts.append(f"{duration(job.progress.eta_seconds)} left" if job.progress.eta_seconds is not None else "")
    return "  ".join(part for part in parts if part)


class _Html:
    """HTML for a notebook, and its text for other fronts."""

    def __init__(self, html: str) -> None:
        self._html = html

    def _repr_html_(self) -> str:
        return self._html


def _notebook() -> Any:
    """IPython's `display` where this runs in a notebook; IPython is there already, or this is none."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return import_module("IPython.display").display


def duration(seconds: float | None) -> str:
    """Seconds in the largest unit that leaves a number to read."""
    if seconds is None:
        return ""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
