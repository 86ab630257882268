"""What a job says while it runs, and how the stream of it is read (server-sent events)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gradsmith.errors import InvalidResponse


@dataclass(frozen=True)
class Event:
    """Something that a job said. Kinds of a newer server that this version does not know come as plain `Event`.

    kind: "status", "metrics", "log", "checkpoint", "resumed", "rolled_back", "start_ended", "stopped_early", "done"
    id: "<attempt>-<sequence>"; `jobs.stream(job, after=id)` goes on behind it. None for the opening status
    data: the JSON as it came
    """

    kind: str
    id: str | None
    data: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class StatusEvent(Event):
    """The job's status changed, or what it is when the stream opens."""

    status: str
    attempt: int
    reason: str | None


@dataclass(frozen=True)
class MetricsEvent(Event):
    """Points of the loss curve: columns of equal length.

    step: meta-steps, rising
    loss, gradient_norm: NaN where the run had no finite value
    validation: None where none was measured
    learning_rate: None where an older version of the server stored the point without it
    skipped: whether the meta-step changed nothing, because its loss or gradient was not finite
    """

    step: tuple[int, ...]
    loss: tuple[float, ...]
    gradient_norm: tuple[float, ...]
    validation: tuple[float | None, ...]
    learning_rate: tuple[float | None, ...]
    skipped: tuple[bool, ...]


@dataclass(frozen=True)
class LogEvent(Event):
    """A line for people."""

    message: str
    level: str


@dataclass(frozen=True)
class CheckpointEvent(Event):
    """The run can be resumed from this meta-step."""

    step: int


@dataclass(frozen=True)
class ResumedEvent(Event):
    """A new attempt goes on from this meta-step: drop the points behind it."""

    from_step: int


@dataclass(frozen=True)
class DoneEvent(Event):
    """An attempt of the job ended. The last event of a stream, unless the job was retried: then more follow.

    status: "succeeded", "failed" or "cancelled"
    optimizer: id of what it made, if anything
    """

    status: str
    reason: str | None
    optimizer: str | None


def event_from(kind: str, id: str | None, data: dict[str, Any]) -> Event:  # noqa: A002
    """The typed event. Raises InvalidResponse when a known kind lacks what it must have."""
    try:
        match kind:
            case "status":
                return StatusEvent(kind, id, data, data["status"], data.get("attempt", 1), data.get("reason"))
            case "metrics":
                return MetricsEvent(
                    kind,
                    id,
                    data,
                    step=tuple(data["step"]),
                    loss=_numbers(data["loss"]),
                    gradient_norm=_numbers(data.get("gradient_norm") or [None] * len(data["step"])),
                    validation=tuple(data.get("validation") or [None] * len(data["step"])),
                    learning_rate=tuple(data.get("learning_rate") or [None] * len(data["step"])),
                    skipped=tuple(data.get("skipped") or [False] * len(data["step"])),
                )
            case "log":
                return LogEvent(kind, id, data, data["message"], data.get("level", "info"))
            case "checkpoint":
                return CheckpointEvent(kind, id, data, data["step"])
            case "resumed":
                return ResumedEvent(kind, id, data, data["from_step"])
            case "done":
                return DoneEvent(kind, id, data, data["status"], data.get("reason"), data.get("optimizer"))
    except (KeyError, TypeError) as error:
        raise InvalidResponse(f"a {kind!r} event without what it must have ({error!r}): {data!r}") from error
    return Event(kind, id, data)


def _numbers(values: Iterable[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else value for value in values)


def place(event_id: str) -> tuple[int, int]:
    """ "<attempt>-<sequence>" as numbers, so that ids can be compared. Raises InvalidResponse."""
    attempt, _, sequence = event_id.partition("-")
    try:
        return int(attempt), int(sequence)
    except ValueError:
        raise InvalidResponse(f"an event's id must be <attempt>-<sequence>, not {event_id!r}") from None


@dataclass(frozen=True)
class Message:
    """One block of an event stream: its fields as they came."""

    kind: str
    id: str | None
    data: str
    retry_milliseconds: int | None

    def event(self) -> Event:
        """Raises InvalidResponse when the data is no JSON object."""
        try:
            data = json.loads(self.data)
        except ValueError as error:
            raise InvalidResponse(f"the data of a {self.kind!r} event is no JSON: {self.data[:200]!r}") from error
        if not isinstance(data, Mapping):
            raise InvalidResponse(f"the data of a {self.kind!r} event is no JSON object: {self.data[:200]!r}")
        return event_from(self.kind, self.id, dict(data))


class EventStream:
    """Parses the bytes of a `text/event-stream` as they come (WHATWG HTML, section 9.2), however they are cut.

    Lines end with LF, CR or CRLF; httpx's own `iter_lines` also splits at U+2028 and its kin, which may stand in the
    middle of a message. A block that is not closed by an empty line is dropped, as the standard says: the connection
    broke in it. Blocks without data, such as a server's heartbeat or `retry` alone, come with empty `data`.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[str, str] = {}
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """The messages that `chunk` completes."""
        *complete, self._rest = _LINE_END.split(self._rest + chunk)
        for line in complete:
            message = self.line(line.decode("utf-8", errors="replace"))
            if message is not None:
                yield message

    def line(self, line: str) -> Message | None:
        """The message that a line without its end completes, if it completes one."""
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                self._data.append(value)
            elif name:  # a line that begins with a colon is a comment
                self._fields[name] = value
            return None
        retry = self._fields.get("retry", "")
        message = Message(
            kind=self._fields.get("event", "message"),
            id=self._fields.get("id"),
            data="\n".join(self._data),
            retry_milliseconds=int(retry) if retry.isascii() and retry.isdigit() else None,
        )
        self._fields, self._data = {}, []
        return message


# A CR that ends a chunk may be half of a CRLF: it waits for what follows.
_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
