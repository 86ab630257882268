"""A job as it runs: on a terminal a bar and the curve so far, drawn anew; elsewhere a line now and then."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

import typer

from gradsmith.cli import show
from gradsmith.cli.picture import Losses
from gradsmith.errors import GradsmithError
from gradsmith.events import DoneEvent, Event, LogEvent, MetricsEvent, ResumedEvent, StatusEvent

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from gradsmith.client import Client
    from gradsmith.types import Job

_SECONDS_BETWEEN_LINES = 10.0  # where output is no terminal
_SECONDS_BETWEEN_LOOKS = 2.0
_NAMES = {"meta_train": "training", "evaluate": "evaluating", "preview": "preview"}


class Shown(Protocol):
    """What is drawn: a line where nothing can be drawn anew, else rows; and a line that stays when it has ended."""

    def text(self) -> str: ...

    def drawn(self, width: int) -> RenderableType: ...

    def ended(self, width: int) -> str: ...


class Line:
    """What is shown of one job."""

    def __init__(self, job: Job) -> None:
        self.name = _NAMES.get(job.kind, job.kind)
        self.trains = job.kind == "meta_train"
        self.losses = Losses()
        self.validation: float | None = None
        self.activity = ""
        self.ran: float | None = None
        self._began = time.monotonic()
        self.look(job)
        self._first = self.step

    def look(self, job: Job) -> None:
        """Take what the job's record says."""
        self.status, self.before = job.status, job.queue_position or 0
        self.step, self.total = job.progress.step, job.progress.total
        self.eta = job.progress.eta_seconds
        if job.started_at is not None and job.finished_at is not None:
            self.ran = (job.finished_at - job.started_at).total_seconds()

    def take(self, event: Event) -> str | None:
        """Take what the job said; returns what is told above the line, if anything."""
        told = None
        match event:
            case MetricsEvent():
                self.losses.add(event.loss)
                self.step = event.step[-1] if event.step else self.step
                self.validation = next((each for each in reversed(event.validation) if each is not None),
                                       self.validation)  # fmt: skip
            case StatusEvent() | DoneEvent():
                self.status = event.status
            case LogEvent() if event.level == "info" and not self.trains:
                self.activity = event.message
            case LogEvent() | ResumedEvent():
                if isinstance(event, ResumedEvent):
                    self.losses.keep(event.from_step / max(1, self.step))
                told = show.event(event)
        progress = event.data.get("progress")
        if isinstance(progress, dict):
            self.step, self.total = progress.get("step") or self.step, progress.get("total") or self.total
        return told

    def left(self) -> float | None:
        """Seconds until it ends, from what was seen here, else as the server says."""
        seen = self.step - self._first
        if self.status != "running" or not self.total or seen <= 0:
            return self.eta if self.status == "running" else None
        return (self.total - self.step) * (time.monotonic() - self._began) / seen

    def text(self) -> str:
        """One line without a bar."""
        left = self.left()
        parts = [self.name, self.status if self.status != "running" else ""]
        parts.append(f"{self.step}/{self.total}" if self.total else "")
        parts.append(f"{show.duration(left)} left" if left is not None else "")
        parts += [show.sparkline(self.losses.means, 30), *self._numbers()]
        parts.append(self.activity if self.status == "running" else "")
        return "  ".join(part for part in parts if part)

    def drawn(self, width: int) -> RenderableType:
        """Rows for a terminal that is so many columns wide."""
        from gradsmith.cli.picture import beside, line

        if self.status == "queued":
            return f"{self.name}  queued" + (f", {self.before} before it" if self.before else "")
        left = self.left()
        told = f"{show.duration(left)} left" if left is not None else self.status
        if not self.trains or len(self.losses.means) < 2:
            return line(self.name, self.step, self.total, [told, self.activity], width)
        facts = {"step": f"{self.step:,} of {self.total:,}", "": told, "loss": show.number(self.losses.last)}
        if self.validation is not None:
            facts["validation"] = show.number(self.validation)
        return beside(self.name, self.step, self.total, facts, self.losses.means, width)

    def ended(self, width: int) -> str:
        """The line that stays."""
        status = self.status if self.ran is None else f"{self.status} in {show.duration(self.ran)}"
        parts = [self.name, status, f"{self.step:,} steps" if self.losses.means else ""]
        room = width - sum(map(len, (*parts, *self._numbers()))) - 2 * (len(parts) + 2)
        curve = show.sparkline(self.losses.means, max(0, min(40, room)))
        return "  ".join(part for part in (*parts, curve, *self._numbers()) if part)

    def _numbers(self) -> list[str]:
        last = [f"loss {show.number(self.losses.last)}"] if self.losses.means else []
        return last + ([f"validation {show.number(self.validation)}"] if self.validation is not None else [])


def watched(client: Client, job: str) -> Job:
    """Shows the job until it has ended; returns it as it is then. Raises what `client.jobs.stream` raises."""
    found = client.jobs.get(job)
    line = Line(found)
    over = threading.Event()

    def look() -> None:
        """A stream has no progress of what is no training, and no place in the queue."""
        while not over.wait(_SECONDS_BETWEEN_LOOKS):
            if line.trains and line.status == "running":
                continue
            with suppress(GradsmithError, RuntimeError):  # a client that was closed in the meantime
                line.look(client.jobs.get(job))

    looking = threading.Thread(target=look, daemon=True)
    with drawing(line) as draw:
        looking.start()
        try:
            last = None
            while True:
                for event in client.jobs.stream(found, after=last):
                    last = event.id or last
                    draw(line.take(event))
                found = client.jobs.get(job)
                if found.finished:
                    break
                time.sleep(_SECONDS_BETWEEN_LOOKS)  # it was retried when its stream had just ended
        finally:
            over.set()
            looking.join(1.0)  # a server that is away must not keep Ctrl-C waiting
        line.look(found)
    return found


class Draw:
    """Prints the line now and then; with a message, prints that first."""

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
    """On a terminal: rows that are drawn anew eight times a second, below what was told."""

    def __init__(self, line: Shown, console: Console) -> None:
        from rich.live import Live

        super().__init__(line)
        self.live = Live(
            get_renderable=lambda: line.drawn(console.width), console=console, refresh_per_second=8, transient=True
        )

    def __call__(self, message: str | None) -> None:
        if message is not None:
            self.live.console.print(message, highlight=False, markup=False)


@contextmanager
def drawing(line: Shown) -> Iterator[Draw]:
    """Draws the line whenever what is yielded is called, and a last time."""
    if not sys.stderr.isatty():
        yield Draw(line)
        typer.echo(line.text(), err=True)
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    live = LiveDraw(line, console)
    try:
        with live.live:
            yield live
    finally:
        console.print(line.ended(console.width), markup=False, no_wrap=True, overflow="ellipsis")
