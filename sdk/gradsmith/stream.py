"""Following a job's events over connections that may break: nothing is lost and nothing comes twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradsmith.answers import failure_of
from gradsmith.errors import ConnectionFailed, InvalidResponse, ResponseError
from gradsmith.events import Event, EventStream, Message, StatusEvent, place
from gradsmith.programs import Emit, Feed, Open, Read, Sleep
from gradsmith.retries import Options, pause_seconds, worth_retrying

if TYPE_CHECKING:
    import httpx


def follow(path: str, after: str | None, options: Options) -> Feed[Event]:
    """Emit the events behind `after` until the job is done; see `Jobs.stream`.

    A connection that ends without `done` (a restarted server, a proxy's time limit, a cut cable) is opened again
    with `Last-Event-ID`. Ids are compared as well, so a server that repeats itself does no harm.

    The `done` of an attempt before a retry ends nothing: each connection opens with the job's newest attempt.
    """
    last = after
    opening: StatusEvent | None = None
    newest = 0  # attempt that the server has told of
    failures = 0
    retry_seconds: float | None = None
    while True:
        try:
            response: httpx.Response = yield Open(path, {} if last is None else {"Last-Event-ID": last})
            if not response.is_success:
                raise failure_of(response)
            if response.status_code == 204:  # the job is done, and `after` was its last event
                return
            media_type = response.headers.get("Content-Type", "")
            if not media_type.startswith("text/event-stream"):
                raise InvalidResponse(f"{response.request.url} answered {media_type!r}, not an event stream")
            received = EventStream()
            while (chunk := (yield Read())) is not None:
                for message in received.feed(chunk):
                    failures = 0  # any sign of life counts, heartbeats too
                    if message.retry_milliseconds is not None:
                        retry_seconds = message.retry_milliseconds / 1000
                    event = _new(message, last)
                    if event is None:
                        continue
                    if event.id is not None:
                        last = event.id
                    elif isinstance(event, StatusEvent):
                        newest = max(newest, event.attempt)
                        # Each connection opens with the status, without an id: told again only when it has changed.
                        if event == opening:
                            continue
                        opening = event
                    yield Emit(event)
                    if event.kind == "done" and (event.id is None or place(event.id)[0] >= newest):
                        return
            failures += 1
            pause = retry_seconds
            if failures >= options.failures_in_a_row:
                raise ConnectionFailed(f"{response.request.url} closes again and again without saying anything")
        except ConnectionFailed:
            failures += 1
            pause = None
            if failures >= options.failures_in_a_row:
                raise
        except ResponseError as failure:
            failures += 1
            pause = failure.retry_after_seconds
            if failures >= options.failures_in_a_row or not worth_retrying(failure):
                raise
        yield Sleep(pause_seconds(max(failures, 1), pause))


def _new(message: Message, last: str | None) -> Event | None:
    """The event in a message; None for a heartbeat and for what was told before."""
    if not message.data:
        return None
    if message.id is not None and last is not None and place(message.id) <= place(last):
        return None
    return message.event()
