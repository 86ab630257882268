"""A job as it runs: a bar, the time left and the curve so far, in one line that is drawn anew."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import typer

from gradsmith.cli import show
from gradsmith.events import DoneEvent, LogEvent, MetricsEvent, ResumedEvent, StatusEvent

if TYPE_CHECKING:
    from gradsmith.client import Client
    from gradsmith.types import Job

_SECONDS_BETWEEN_LINES = 10.0  # where output is no terminal


class Shown(Protocol):
    """What a line is drawn of."""

    step: int
    total: int

    def text(self) -> str: ...


class Line:
    """What is shown of one job."""

    def __init__(self, job: Job) -> None:
        self.name = {"meta_train": "training", "evaluate": "evaluating", "preview": "preview"}.get(job.kind, job.kind)
        self.status = job.status
        self.step, self.total = job.progress.step, job.progress.total
        self.losses: list[float] = []
        self.validation: float | None = None
        self.began = time.monotonic()
        self._first = self.step

    def take(self, event: MetricsEvent) -> None:
        """Points of the curve."""
        self.losses += event.loss
        self.step = event.step[-1] if event.step else self.step
        self.validation = next((each for each in reversed(event.validation) if each is not None), self.validation)

    def text(self) -> str:
        """The line, without the bar."""
        done = f"{self.step}/{self.total}" if self.total else ""
        seen = self.step - self._first
        left = (self.total - self.step) * (time.monotonic() - self.began) / seen if seen > 0 and self.total else None
        parts = [self.name, self.status if self.status != "running" else "", done]
        parts.append(f"{show.duration(left)} left" if left is not None and self.status == "running" else "")
        parts.append(show.sparkline(self.losses, 30))
        parts.append(f"loss {self.losses[-1]:.4g}" if self.losses else "")
        parts.append(f"validation {self.validation:.4g}" if self.validation is not None else "")
        return "  ".join(part for part in parts if part)


def watched(client: Client, job: str) -> Job:
    """Shows the job until it has ended; returns it as it is then. Raises what `client.jobs.stream` raises."""
    found = client.jobs.get(job)
    line = Line(found)
    with drawing(line) as draw:
        for event in client.jobs.stream(found):
            if isinstance(event, MetricsEvent):
                line.take(event)
            elif isinstance(event, StatusEvent):
                line.status = event.status
            elif isinstance(event, LogEvent | ResumedEvent):
                draw(event.message if isinstance(event, LogEvent) else f"resumed from step {event.from_step}")
            elif isinstance(event, DoneEvent):
                line.status = event.status
                line.step = line.total if event.status == "succeeded" and not line.losses else line.step
            progress = event.data.get("progress")
            if isinstance(progress, dict):
                line.step, line.total = progress.get("step") or line.step, progress.get("total") or line.total
            draw(None)
    return client.jobs.get(job)


class Draw:
    """Draws the line anew; with a message, prints that above it."""

    def __init__(self, line: Shown) -> None:
        self._line = line
        self._last = 0.0

    def __call__(self, message: str | None) -> None:
        if message is not None:
            typer.echo(message, err=True)
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            typer.echo(self._line.text(), err=True)


class LiveDraw(Draw):
    """On a terminal: one line, eight times a second."""

    def __init__(self, line: Shown) -> None:
        super().__init__(line)
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar = Progress(BarColumn(20), TextColumn("{task.description}"), transient=False)
        self._task = self._bar.add_task(line.text(), total=line.total or None)
        self.live = Live(self._bar, console=Console(stderr=True, highlight=False), refresh_per_second=8)

    def __call__(self, message: str | None) -> None:
        if message is not None:
            self.live.console.print(message, highlight=False, markup=False)
        self._bar.update(
            self._task, description=self._line.text(), completed=self._line.step, total=self._line.total or None
        )


@contextmanager
def drawing(line: Shown) -> Iterator[Draw]:
    """Draws the line whenever what is yielded is called, and a last time."""
    if not sys.stderr.isatty():
        draw = Draw(line)
        yield draw
        typer.echo(line.text(), err=True)
        return
    live = LiveDraw(line)
    with live.live:
        yield live
        live(None)
