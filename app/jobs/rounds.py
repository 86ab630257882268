"""A thread that does rounds of work for as long as its process serves: the dispatcher's, and that of the sweeps."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import TypeVar

import redis
from sqlalchemy.exc import SQLAlchemyError

from app.settings import Settings
from app.store.errors import LeaseLost, StoreError
from app.store.events import JobEvent
from app.streams import Publisher

logger = logging.getLogger("gradsmith.rounds")

T = TypeVar("T")

STOP_SECONDS = 5.0


@dataclass
class Rounds:
    """`start()` and `stop()` it with the process. `wake()` begins the next round now.

    name: of the thread
    logger: gets what goes wrong
    work: called over and over; it waits on `woken` itself between two rounds
    """

    name: str
    logger: logging.Logger
    work: Callable[[], None]
    woken: threading.Event = field(default_factory=threading.Event, init=False)
    _stopping: bool = field(default=False, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _away: set[str] = field(default_factory=set, init=False)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its round."""
        self._stopping = True
        self.woken.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def wake(self) -> None:
        """Begin the next round now. Safe from any thread."""
        self.woken.set()

    def attempt(self, what: str, action: Callable[[], T]) -> T | None:
        """Do a part of a round; None where it failed. A store that is away is logged once, and once more when it is
        back; the next round is the retry."""
        try:
            done = action()
        except (redis.RedisError, StoreError, SQLAlchemyError) as error:
            if what not in self._away:
                self.logger.warning("%s waits: %s", what, str(error).splitlines()[0])
            self._away.add(what)
            return None
        except Exception:
            # Not known to happen; but without this thread no job would ever go on.
            self.logger.exception("%s failed; going on", what)
            return None
        if what in self._away:
            self._away.remove(what)
            self.logger.info("%s goes on", what)
        return done

    def _run(self) -> None:
        while not self._stopping:
            self.work()


def tell(settings: Settings, job_id: str, event: JobEvent) -> None:
    """Publish an event to those who watch the job. It is stored already: what goes wrong here costs them a moment."""
    try:
        with closing(Publisher(settings, job_id)) as publisher:
            publisher.publish(event)
    except LeaseLost:
        logger.debug("job %s has gone on since attempt %d", job_id, event.id.attempt)
