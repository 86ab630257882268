"""The stored and the live events of one job as one sequence: each once, in order. Knows no clock, database or Redis."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from app.store.events import EventId, JobEvent, Replay

BUFFERED_EVENTS = 256  # for each client; one that is slower catches up from the database


class Merger:
    """One client's view of a job, after the event `position`.

    Stored events come in pages without holes (`app.store.events.after`). Live events may come twice, early or never:
    one is given only where it directly follows the last, so each hole is filled from the store.

    position: id of the newest event that was given; ended: that was the job's last
    """

    def __init__(self, position: EventId) -> None:
        self.position = position
        self.ended = False
        self._live: deque[JobEvent] = deque()

    def stored(self, replay: Replay) -> Iterator[JobEvent]:
        """The new events of a page that was read after `position`."""
        for event in replay.events:
            if event.id > self.position:
                self.position = event.id
                yield event
        self.ended = self.ended or replay.ended

    def recent(self, events: Iterable[JobEvent]) -> Iterator[JobEvent]:
        """Those of live events in order, perhaps seen before, that follow without a hole."""
        for event in events:
            if not self.ended and self.position.precedes(event.id):
                yield self._given(event)

    def offer(self, event: JobEvent) -> bool:
        """Keep a live event until its turn. False when there were too many: all are dropped, and the store has them."""
        fits = len(self._live) < BUFFERED_EVENTS
        if not fits:
            self._live.clear()
        self._live.append(event)
        return fits

    def live(self) -> JobEvent | None:
        """The kept event that directly follows, if it is here; older ones are dropped."""
        while self._live and self._live[0].id <= self.position:
            self._live.popleft()
        if self._live and not self.ended and self.position.precedes(self._live[0].id):
            return self._given(self._live.popleft())
        return None

    @property
    def has_gap(self) -> bool:
        """Whether later events are here although `live` found nothing."""
        return bool(self._live)

    @property
    def kept(self) -> int:
        """Live events that wait for their turn; at most `BUFFERED_EVENTS`."""
        return len(self._live)

    def _given(self, event: JobEvent) -> JobEvent:
        """A live `done` is the job's last; a stored one may be of an attempt before a retry."""
        self.position = event.id
        self.ended = event.kind == "done"
        return event
