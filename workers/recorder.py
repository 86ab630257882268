"""What a running job tells: live at once, durable soon, in one numbered sequence.

Points wait until there are 64 of them or 200 ms have gone by, then travel as one packed `metrics` event; the first of
an attempt leaves when the second comes, for somebody waits for it. Live copies may be lost (Redis away); the database
gets every event, in order, without a hole.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from sqlalchemy.orm import Session

from app.settings import Settings
from app.store import events, leases
from app.store.curve_format import Points
from app.store.events import EventId, EventKind, JobEvent
from app.streams import Publisher
from workers.lifecycle import Claimed, Keeper

PROGRESS_SECONDS = 1.0
SPEED_SECONDS = 2.0


class Pace:
    """The time that a job still needs, from its mean speed over the last minutes.

    A mean over a stretch, for work comes in unequal pieces: a validation may take as long as the fifty meta-steps
    before it, and belongs to each of them. The stretch begins after the first step, which also warms everything up.
    """

    STRETCH_SECONDS = 300.0
    SPACING_SECONDS = 1.0

    def __init__(self, step: int) -> None:
        self._start = step
        self._marks: deque[tuple[float, int]] = deque()  # (moment, step) where the stretch may begin

    def eta_seconds(self, step: int, total: int) -> float | None:
        """None until a second step has been seen."""
        now = time.monotonic()
        if step <= self._start:
            return None
        if not self._marks or now - self._marks[-1][0] >= self.SPACING_SECONDS:
            self._marks.append((now, step))
        while len(self._marks) > 1 and now - self._marks[0][0] > self.STRETCH_SECONDS:
            self._marks.popleft()
        moment, first = self._marks[0]
        if step <= first:
            return None
        return max(0, total - step) * (now - moment) / (step - first)


class Recorder:
    """The one writer of an attempt's events. Main thread only."""

    def __init__(self, keeper: Keeper, publisher: Publisher, settings: Settings, claimed: Claimed) -> None:
        self._keeper = keeper
        self._publisher = publisher
        self._settings = settings
        self._next_id = claimed.next_id
        self._points = Points()
        self._pending: list[JobEvent] = []  # made, perhaps seen live, not durable yet
        self._pending_points = 0
        self._told_points = False  # whether any have been sent
        self._step, self._total = claimed.job.step, claimed.job.total
        self._pace = Pace(0)
        now = time.monotonic()
        self._point_since = self._stored = self._progressed = now
        self._worker = keeper.lease.owner.rpartition(":")[0]
        self._speed_since, self._speed_step = now, 0

    def begin(self, step: int) -> None:
        """This attempt goes on after `step`: that of its checkpoint, and not how far the attempt before has come."""
        self._step = step
        self._pace = Pace(step)
        self._speed_since, self._speed_step = time.monotonic(), step

    def point(self, step: int, loss: float, gradient_norm: float, learning_rate: float, skipped: bool) -> None:
        """A meta-step. The newest point stays back until the next call, for its validation score may follow."""
        self._flush_points_if_due()
        if not len(self._points):
            self._point_since = time.monotonic()
        self._points.step.append(step)
        self._points.loss.append(loss)
        self._points.gradient_norm.append(gradient_norm)
        self._points.validation.append(None)
        self._points.learning_rate.append(learning_rate)
        self._points.skipped.append(skipped)
        self._step = step
        self._tell_speed_if_due()
        self._store_if_due()

    def score(self, step: int, validation: float) -> None:
        """The validation score after `step`. When that step's point has left already, a log line tells of it."""
        if self._points.step and self._points.step[-1] == step:
            self._points.validation[-1] = validation
        else:
            self.say("log", {"level": "info", "message": f"validation after meta-step {step}: {validation:.6g}"})

    def progress(self, step: int, total: int) -> None:
        self._step, self._total = step, total
        self._store_if_due()

    def say(self, kind: EventKind, data: dict[str, Any], *, at_once: bool = False) -> JobEvent:
        """An event other than points. It is live now; it is durable within `curve_flush_seconds`, or `at_once`."""
        self._flush_points()
        event = JobEvent.of(self._take_id(), kind, data)
        self._pending.append(event)
        self._publisher.publish(event)
        if at_once:
            self.store()
        return event

    def say_with(self, kind: EventKind, data: dict[str, Any], also: Callable[[Session, JobEvent], None]) -> None:
        """An event that is durable, in one transaction with `also`, before anyone sees it."""
        self._flush_points()
        event = JobEvent.of(self._take_id(), kind, data)
        self._pending.append(event)
        self.store(lambda session: also(session, event))
        self._publisher.publish(event)

    def store(self, also: Callable[[Session], None] | None = None) -> None:
        """Make all that was said durable. Raises LeaseLost."""
        pending, now = self._pending, time.monotonic()

        def operation(session: Session, again: bool) -> str:
            if pending and not (again and self._is_durable(session, pending[-1])):
                leases.record(session, self._keeper.lease, pending)
            status = leases.progress(session, self._keeper.lease, self._step, self._total, self._eta())
            if also is not None:
                also(session)
            return status

        self._keeper.note(self._keeper.write(operation))
        self._pending, self._pending_points = [], 0
        self._stored = self._progressed = now

    def finish(self, operation: Callable[[Session, list[JobEvent], EventId], JobEvent]) -> JobEvent:
        """End the job: `operation(session, last events, id of done)` stores all in one transaction, after the last
        progress, and gives the event to send last. Raises LeaseLost."""
        self._flush_points()
        self._keeper.ending()
        last, done_id = self._pending, self._take_id()

        def patient(session: Session, again: bool) -> JobEvent | None:
            if again and events.next_id(session, self._keeper.lease.job_id, done_id.attempt) > done_id:
                return None  # the try before was committed; only its answer was lost
            leases.progress(session, self._keeper.lease, self._step, self._total, self._eta())
            return operation(session, last, done_id)

        self._publisher.tell_speed(self._worker, None)
        event = self._keeper.write(patient)
        self._pending = []
        if event is None:
            event = self._keeper.write(lambda session, _again: self._stored_event(session, done_id))
        self._publisher.publish(event)
        return event

    def _stored_event(self, session: Session, event_id: EventId) -> JobEvent:
        before = EventId(event_id.attempt, event_id.sequence - 1)
        return events.after(session, self._keeper.lease.job_id, before, 1).events[0]

    def _flush_points_if_due(self) -> None:
        waited = time.monotonic() - self._point_since
        enough = len(self._points) >= self._settings.stream_flush_points
        if enough or waited >= self._settings.stream_flush_seconds or not self._told_points:
            self._flush_points()

    def _flush_points(self) -> None:
        if len(self._points):
            event = JobEvent.metrics(self._take_id(), self._points)
            self._pending.append(event)
            self._pending_points += len(self._points)
            self._points = Points()
            self._told_points = True
            self._publisher.publish(event)

    def _store_if_due(self) -> None:
        now = time.monotonic()
        full = self._pending_points >= self._settings.curve_chunk_points
        if full or now - self._stored >= self._settings.curve_flush_seconds:
            self.store()
        elif now - self._progressed >= PROGRESS_SECONDS:
            self._progressed = now
            step, total, eta = self._step, self._total, self._eta()
            self._keeper.note(
                self._keeper.write(lambda session, _: leases.progress(session, self._keeper.lease, step, total, eta))
            )

    def _tell_speed_if_due(self) -> None:
        now = time.monotonic()
        if now - self._speed_since >= SPEED_SECONDS:
            self._publisher.tell_speed(self._worker, (self._step - self._speed_step) / (now - self._speed_since))
            self._speed_since, self._speed_step = now, self._step

    def _eta(self) -> float | None:
        return self._pace.eta_seconds(self._step, self._total)

    def _is_durable(self, session: Session, event: JobEvent) -> bool:
        return events.next_id(session, self._keeper.lease.job_id, event.id.attempt) > event.id

    def _take_id(self) -> EventId:
        event_id = self._next_id
        self._next_id = EventId(event_id.attempt, event_id.sequence + 1)
        return event_id
