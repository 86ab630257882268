"""Any interleaving of what is stored and what is seen live gives each event once, in order."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from app.store.events import START, EventId, JobEvent, Replay
from app.streams.merge import BUFFERED_EVENTS, Merger


def event(attempt: int, sequence: int, kind: str = "log") -> JobEvent:
    return JobEvent.of(EventId(attempt, sequence), kind, {"message": f"{attempt}-{sequence}"})  # type: ignore[arg-type]


@dataclass
class Job:
    """What a job's attempts say, and what of it is stored: all up to some event, at the latest when the job ends.

    A worker that is lost leaves some of its last events unstored for ever.
    """

    chance: random.Random
    page: int
    attempt: int = 1
    said: list[JobEvent] = field(default_factory=list)  # of the attempt that runs
    stored: list[JobEvent] = field(default_factory=list)
    never_stored: list[JobEvent] = field(default_factory=list)
    ended: bool = False

    def say(self, kind: str = "log") -> JobEvent:
        self.said.append(event(self.attempt, len(self.said) + 1, kind))
        return self.said[-1]

    def store(self, up_to: int) -> None:
        have = {each.id for each in self.stored}
        self.stored += [each for each in self.said[:up_to] if each.id not in have]

    def lose_the_worker(self) -> None:
        self.never_stored += [each for each in self.said if each not in self.stored]
        self.attempt, self.said = self.attempt + 1, []

    def replay(self, position: EventId) -> Replay:
        """As `app.store.events.after`: a page of what is stored, up to a hole that may still be filled."""
        later = [each for each in self.stored if each.id > position]
        given: list[JobEvent] = []
        last = position
        for each in later[: self.page]:
            follows = each.id == (last.attempt, last.sequence + 1) or (
                each.id.attempt > last.attempt and each.id[1] == 1
            )
            if not (self.ended or each.id.attempt < self.attempt or follows):
                return Replay(given, more=False, ended=False)
            given.append(each)
            last = each.id
        more = len(later) > self.page
        return Replay(given, more=more, ended=self.ended and not more)


@pytest.mark.parametrize("seed", range(150))
def test_each_event_is_given_once_and_in_order(seed: int) -> None:
    chance = random.Random(seed)
    job = Job(chance, page=chance.choice([1, 3, 500]))
    merger = Merger(START)
    given: list[JobEvent] = []
    in_redis: list[JobEvent] = []

    def read_live() -> None:
        while (live := merger.live()) is not None:
            given.append(live)

    def happen(spoken: JobEvent) -> None:
        if chance.random() < 0.7:  # else its live copy is lost
            in_redis.append(spoken)
            merger.offer(spoken)
            if chance.random() < 0.1:
                merger.offer(spoken)

    for _ in range(chance.randrange(5, 80)):
        match chance.choice(
            ["say", "say", "say", "store", "replay", "recent", "live", "live", "lose", "trim", "flood"]
        ):
            case "say":
                happen(job.say())
            case "store":
                job.store(chance.randrange(len(job.said) + 1))
            case "replay":
                read_after = merger.position if chance.random() < 0.8 else START  # a page may overlap what was given
                given += merger.stored(job.replay(read_after))
            case "recent":
                given += merger.recent(list(in_redis))
            case "live":
                read_live()
            case "lose" if job.attempt < 4 and chance.random() < 0.5:
                job.lose_the_worker()
            case "trim":
                del in_redis[: chance.randrange(len(in_redis) + 1)]
            case "flood" if chance.random() < 0.1:
                for _ in range(BUFFERED_EVENTS + 5):
                    happen(job.say())
    done = job.say("done")
    if chance.random() < 0.5:
        happen(done)
        read_live()
    job.store(len(job.said))
    job.ended = True
    for _ in range(2000):
        if merger.ended:
            break
        given += merger.stored(job.replay(merger.position))
    assert merger.ended
    assert list(merger.stored(job.replay(merger.position))) == [] == list(merger.recent(in_redis))
    assert merger.live() is None
    ids = [each.id for each in given]
    assert ids == sorted(set(ids))
    told = [each for each in given if each not in job.never_stored]
    assert told == job.stored, "what was never stored may have been seen, or not"


def test_what_comes_twice_holds_nothing_up() -> None:
    merger = Merger(START)
    for sequence in (1, 1, 2, 1, 2, 3):
        assert merger.offer(event(1, sequence))
    assert [merger.live() for _ in range(4)] == [event(1, 1), event(1, 2), event(1, 3), None]
    assert not merger.has_gap


def test_a_slow_client_keeps_no_more_than_the_limit() -> None:
    merger = Merger(START)
    fits = [merger.offer(event(1, sequence)) for sequence in range(2, BUFFERED_EVENTS + 3)]
    assert fits == [True] * BUFFERED_EVENTS + [False]
    assert (merger.kept, merger.has_gap, merger.live()) == (1, True, None)
