"""A sweep on the command line: how it goes, in one line that is drawn anew, and what it found, in a table."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from gradsmith.cli import picture, show
from gradsmith.cli.given import BRACKETED, value
from gradsmith.cli.outcome import refuse

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gradsmith.client import Client
    from gradsmith.sweeps import Search, Trial
    from gradsmith.types import Job

_POLL_SECONDS = 1.0


def swept(text: str) -> Any:
    """A value of --set: JSON; else `100,200`, a list; else `0.001..0.1` or `0.001..0.1:log`, a range; else text."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    ends, colon, scale = text.partition(":")
    low, dots, high = ends.partition("..")
    if dots and "," not in text:
        if colon and scale != "log":
            refuse(f"a range is LOW..HIGH or LOW..HIGH:log, not {text!r}")
        try:
            return {"low": json.loads(low), "high": json.loads(high)} | ({"log": True} if colon else {})
        except ValueError:
            refuse(f"a range has a number at each end, and {text!r} has not")
    if BRACKETED.fullmatch(text.strip()):
        return value(text)
    if "," in text:
        return [swept(each.strip()) for each in text.split(",") if each.strip()]
    return text


def halving(text: str | None) -> dict[str, int] | None:
    """`3:2` is three rungs, of which each keeps one of two."""
    if text is None:
        return None
    rungs, _, reduction = text.partition(":")
    if not rungs.isdigit() or not (reduction or "3").isdigit():
        refuse(f"--halving is RUNGS or RUNGS:REDUCTION, such as 3:3, not {text!r}")
    return {"rungs": int(rungs)} | ({"reduction": int(reduction)} if reduction else {})


class Line:
    """What is shown of a sweep that goes on."""

    def __init__(self, job: Job, search: Search) -> None:
        self.take(job, search)

    def take(self, job: Job, search: Search) -> None:
        self.status = job.status
        self.step, self.total = job.progress.step, job.progress.total
        self._search = search
        self._running = sum(trial.status == "running" for trial in search.trials)

    def text(self) -> str:
        """The line, without the bar."""
        best = self._search.best
        lowest = [trial.best_so_far for trial in self._search.trials if trial.best_so_far is not None]
        parts = ["sweep", self.status if self.status != "running" else "", f"{self.step}/{self.total}"]
        parts.append(f"{self._running} running" if self._running else "")
        parts.append(show.sparkline(lowest, 30))
        parts.append(f"best {show.number(best.score)} ({_in_words(best)})" if best is not None else "")
        return "  ".join(part for part in parts if part)

    def drawn(self, width: int) -> RenderableType:
        """One row with a bar."""
        best = self._search.best
        told = [self.status if self.status != "running" else "", f"{self.step} of {self.total} trials"]
        told.append(f"{self._running} running" if self._running else "")
        told.append(f"best {show.number(best.score)} ({_in_words(best)})" if best is not None else "")
        return picture.line("sweep", self.step, self.total, told, width)

    def ended(self, width: int) -> str:
        """The line that stays."""
        return self.text()[:width]


def watched(client: Client, sweep: str) -> Job:
    """Shows the sweep until it has ended; returns it as it is then. Raises what `client.jobs.get` raises."""
    from gradsmith.cli.live import drawing

    found = client.jobs.get(sweep)
    line = Line(found, client.sweeps.get(found))
    with drawing(line) as draw:
        while not found.finished:
            time.sleep(_POLL_SECONDS)
            found = client.jobs.get(sweep)
            line.take(found, client.sweeps.get(found))
            draw(None)
    return found


def table(search: Search) -> None:
    """The trials, the best first."""
    names = [name.removeprefix("recipe.") for name in search.fields]
    halved = any(trial.rung for trial in search.trials)
    rows = []
    for trial in sorted(search.trials, key=lambda each: _order(search, each)):
        values = [_shown(trial.values[name]) for name in search.fields]
        mark = "*" if search.best is not None and trial.number == search.best.number else ""
        rung = [str(trial.rung)] if halved else []
        rows.append(
            (f"{trial.number}{mark}", *rung, *values, show.number(trial.score), trial.status, show.name(trial.job))
        )
    columns = ("trial", *(["rung"] if halved else []), *names, "score", "status", "job")
    show.table(columns, rows, empty="No trial has been made yet.", right=("score", *names))
    show.say(f"\nscore: {search.criterion}; lower is better")


def _order(search: Search, trial: Trial) -> tuple[bool, bool, float, int]:
    best = search.best is not None and trial.number == search.best.number
    return (not best, trial.score is None, trial.score or 0.0, trial.number)


def _in_words(trial: Trial) -> str:
    values = ", ".join(f"{name.rpartition('.')[2]} {_shown(value)}" for name, value in trial.values.items())
    return f"trial {trial.number}: {values}"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return show.number(value)
    return value if isinstance(value, str) else json.dumps(value)
