"""Curves come back exactly, from few rows, and the same as they were streamed."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.store import curve_format, curves
from app.store.curve_format import Curve, Points, unpack
from app.store.errors import CorruptCurve
from app.store.events import EventId, JobEvent
from app.store.leases import Lease
from app.store.tables import CurveOverviewRow
from tests.app.store.bench import Bench, metrics, points

NOT_FINITE = {3: math.nan, 5: math.inf, 7: -math.inf}


def curve(bench: Bench, job_id: str) -> Curve:
    found: Curve = bench.read(lambda session: curves.read(session, job_id))
    assert bench.read(lambda session: curves.outline(session, job_id, "default")).is_empty == (len(found) == 0)
    return found


def resumed(attempt: int, sequence: int, step: int) -> JobEvent:
    return JobEvent.of(EventId(attempt, sequence), "resumed", {"from_step": step})


def test_points_come_back_as_they_were(bench: Bench) -> None:
    lease = bench.running()
    assert len(curve(bench, lease.job_id)) == 0
    values = points(1, 40, lambda step: NOT_FINITE.get(step, math.pi / step))
    bench.record(lease, metrics(1, 1, values))
    whole = curve(bench, lease.job_id)
    assert whole.step.tolist() == values.step
    np.testing.assert_array_equal(whole.loss, values.loss)
    np.testing.assert_array_equal(whole.gradient_norm, values.gradient_norm)
    np.testing.assert_array_equal(whole.learning_rate, values.learning_rate)
    np.testing.assert_array_equal(whole.skipped, values.skipped)
    validated = whole.take(~np.isnan(whole.validation))
    assert validated.step.tolist() == [10, 20, 30, 40]
    assert validated.validation.tolist() == [0.2, 0.1, 2 / 30, 0.05]


def test_replayed_metrics_are_those_that_were_streamed(bench: Bench) -> None:
    lease = bench.running()
    streamed, step = [], 1
    for sequence, count in enumerate((1, 64, 7, 64, 3), start=1):
        streamed.append(metrics(1, sequence, points(step, count, lambda step: NOT_FINITE.get(step, 0.1 * step))))
        step += count
    for event in streamed:  # flushes of any size, and chunks that are filled up
        bench.record(lease, event)
    replayed = bench.events(lease.job_id)
    assert [event.id for event in replayed] == [event.id for event in streamed]
    assert [event.text for event in replayed] == [event.text for event in streamed]
    assert streamed[1].data["loss"][1:7] == [None, 0.4, None, 6 * 0.1, None, 0.8], "JSON has no NaN"
    assert replayed[3].points is not None
    assert streamed[3].points is not None
    assert replayed[3].points == streamed[3].points
    for event in streamed:
        assert [found.id for found in bench.events(lease.job_id, event.id)] == [
            other.id for other in streamed if other.id > event.id
        ]


def test_frequent_flushes_leave_few_rows(bench: Bench) -> None:
    lease = bench.running()
    for sequence in range(1, 71):
        bench.record(lease, metrics(1, sequence, points(64 * sequence - 63, 64)))
    count = bench.read(lambda session: session.execute(text("SELECT count(*), max(points) FROM curve_chunks")).one())
    assert tuple(count) == (2, curves.CHUNK_POINTS)
    assert curve(bench, lease.job_id).step.tolist() == list(range(1, 4481))
    assert len(bench.events(lease.job_id)) == 70


def test_a_hundred_thousand_points_lie_in_a_row_for_each_chunk(bench: Bench) -> None:
    lease = bench.running()
    with bench.database.write() as session:
        for chunk in range(25):
            first = 1 + 64 * chunk
            new = [
                ((1, first + part), points(1 + 64 * (first + part - 1), 64 if first + part < 1563 else 32))
                for part in range(64)
                if first + part <= 1563
            ]
            curves.append(session, lease.job_id, new)
    rows = bench.read(lambda session: session.execute(text("SELECT count(*) FROM curve_chunks")).scalar_one())
    assert rows <= 26
    whole = curve(bench, lease.job_id)
    assert len(whole) == 100_000
    np.testing.assert_array_equal(whole.step, np.arange(1, 100_001))
    assert len(whole.downsampled(1000)) <= 1000


def thinned_to(count: int, job_id: str) -> Callable[[Session], tuple[Curve, int]]:
    def read(session: Session) -> tuple[Curve, int]:
        outline = curves.outline(session, job_id, "default")
        thin, total = curves.thinned(session, outline, count)
        at_once = curves.outline(session, job_id, "default", with_overviews=True)
        assert at_once.state == outline.state
        session.execute(text("DELETE FROM curve_overviews"))  # what was read with it is what it uses
        again, total_again = curves.thinned(session, at_once, count)
        session.rollback()
        assert total_again == total
        np.testing.assert_array_equal(again.step, thin.step)
        return thin, total

    return read


def long_curve(bench: Bench, lease: Lease, count: int) -> Points:
    """`count` points of noise in flushes of 1,000, with spikes up and down and some that failed."""
    noise = np.random.default_rng(0).normal(size=count)
    for place, value in SPIKES.items():
        noise[place] = value
    whole = points(1, count, lambda step: float(noise[step - 1]))
    columns = astuple(whole)
    with bench.database.write() as session:
        for sequence, first in enumerate(range(0, count, 1000), start=1):
            part = Points(*(column[first : first + 1000] for column in columns))
            curves.append(session, lease.job_id, [((lease.attempt, sequence), part)])
    return whole


SPIKES = {5: 1e6, 4095: -1e6, 4096: 2e6, 9_999: -3e6, 10_001: math.nan, 17_777: math.inf, 29_998: 4e6}


def test_a_thinned_curve_misses_no_spike_and_reads_overviews_alone(bench: Bench) -> None:
    lease = bench.running()
    long_curve(bench, lease, 30_000)
    whole = curve(bench, lease.job_id)
    thin, total = bench.read(thinned_to(300, lease.job_id))
    assert (total, 200 < len(thin) <= 300) == (30_000, True)
    assert (thin.step[0], thin.step[-1]) == (1, 30_000)
    assert {place + 1 for place in SPIKES} <= set(thin.step.tolist())
    places = thin.step - 1
    np.testing.assert_array_equal(thin.loss, whole.loss[places])
    np.testing.assert_array_equal(thin.gradient_norm, whole.gradient_norm[places])
    # Of long chunks nothing else is read: without their columns the answer is the same.
    with bench.database.write() as session:
        session.execute(text("UPDATE curve_chunks SET columns = :none WHERE points >= 512"), {"none": b""})
    again, _ = bench.read(thinned_to(300, lease.job_id))
    np.testing.assert_array_equal(again.step, thin.step)
    with pytest.raises(CorruptCurve):
        bench.read(thinned_to(3000, lease.job_id))  # too many for overviews


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_attempt_that_resumes_while_a_curve_is_read_takes_back_no_more_than_its_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    lease = bench.running()
    bench.record(lease, metrics(1, 1, points(1, 100)))
    bench.expire(lease.job_id)
    bench.lapsed()
    second = bench.claim(bench.get(lease.job_id), "second")
    ask = curves.resumed_from

    def meanwhile(session: Session, job_id: str) -> dict[int, int]:
        known = ask(session, job_id) if when == "after" else {}
        bench.record(second, resumed(2, 2, 90), metrics(2, 3, points(91, 5)))
        return known if when == "after" else ask(session, job_id)

    monkeypatch.setattr(curves, "resumed_from", meanwhile)
    whole = bench.read(lambda session: curves.read(session, lease.job_id))
    assert set(range(1, 91)) <= set(whole.step.tolist())


def test_an_overview_has_the_lowest_the_highest_and_what_failed_of_each_span(bench: Bench) -> None:
    lease = bench.running()
    spans = 32
    failed = {64 * span + 6 for span in range(1, spans - 1)}
    count = 64 * spans
    bench.record(lease, metrics(1, 1, points(1, count, lambda step: math.nan if step in failed else math.sin(step))))
    overview = unpack(bench.read(lambda session: session.get_one(CurveOverviewRow, (lease.job_id, 1, 1)).columns))
    assert failed <= set(overview.step.tolist())
    assert len(overview.step) <= 2 + 3 * spans
    assert (overview.step[0], overview.step[-1]) == (1, count)


def test_a_curve_of_several_attempts_is_thinned_from_all_of_it(bench: Bench) -> None:
    lease = bench.running()
    long_curve(bench, lease, 30_000)
    before = bench.read(lambda session: curves.outline(session, lease.job_id, "default"))
    bench.expire(lease.job_id)
    bench.lapsed()
    second = bench.claim(bench.get(lease.job_id), "second")
    bench.record(second, resumed(2, 2, 10_000), metrics(2, 3, points(10_001, 10)))
    thin, total = bench.read(thinned_to(300, lease.job_id))
    assert total == 10_010
    assert thin.step[-1] == 10_010
    assert {6, 4096, 4097, 10_000} <= set(thin.step.tolist())
    after = bench.read(lambda session: curves.outline(session, lease.job_id, "default"))
    assert (before.resumed, after.resumed) == ({}, {2: 10_000})
    assert after.state == (30_010, 1)


def test_a_resumed_attempt_takes_the_later_points_back(bench: Bench) -> None:
    lease = bench.running()
    bench.record(lease, metrics(1, 1, points(1, 60)), metrics(1, 2, points(61, 40)))
    bench.expire(lease.job_id)
    bench.lapsed()
    assert curve(bench, lease.job_id).step.tolist() == list(range(1, 101)), "nothing is taken back while it waits"
    second = bench.claim(bench.get(lease.job_id), "second")
    bench.record(second, resumed(2, 2, 50))
    assert curve(bench, lease.job_id).step.tolist() == list(range(1, 51))
    bench.record(second, metrics(2, 3, points(51, 30, lambda step: -step)))
    whole = curve(bench, lease.job_id)
    assert whole.step.tolist() == list(range(1, 81))
    assert whole.loss[49] == 1 / 50
    assert whole.loss[50] == -51
    bench.expire(lease.job_id)
    bench.lapsed()
    third = bench.claim(bench.get(lease.job_id), "third")
    bench.record(third, resumed(3, 2, 20), metrics(3, 3, points(21, 2, lambda _: 7.0)))
    assert curve(bench, lease.job_id).step.tolist() == list(range(1, 23))


def test_an_attempt_that_resumed_from_nothing_takes_all_back(bench: Bench) -> None:
    lease = bench.running()
    assert len(curve(bench, lease.job_id)) == 0
    bench.record(lease, metrics(1, 1, points(1, 30)))
    bench.fail(lease)
    bench.retry(lease.job_id)
    second = bench.claim(bench.get(lease.job_id))
    bench.record(second, resumed(2, 2, 0))
    assert len(curve(bench, lease.job_id)) == 0
    bench.record(second, metrics(2, 3, points(1, 5)))
    assert len(curve(bench, lease.job_id)) == 5


def test_an_attempt_that_did_not_resume_starts_anew(bench: Bench) -> None:
    lease = bench.running()
    bench.record(lease, metrics(1, 1, points(1, 30)))
    bench.fail(lease)
    bench.retry(lease.job_id)
    second = bench.claim(bench.get(lease.job_id))
    assert len(curve(bench, lease.job_id)) == 30, "of the second attempt nothing is known yet"
    bench.record(second, metrics(2, 2, points(1, 5, lambda _: 9.0)))
    whole = curve(bench, lease.job_id)
    assert whole.step.tolist() == [1, 2, 3, 4, 5]
    assert set(whole.loss.tolist()) == {9.0}
    assert [str(event.id) for event in bench.events(lease.job_id)] == ["1-1", "1-2", "2-1", "2-2"], "events stay"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:8], "fewer than its header"),
        (lambda data: b"XXXX" + data[4:], "begins with b'XXXX'"),
        (lambda data: data[:4] + b"\x09\x00" + data[6:], "format 9"),
        (lambda data: data[:-1], "cut or too long"),
        (lambda data: data + b"\x00", "cut or too long"),
    ],
)
def test_damaged_chunks_are_refused(damage: object, message: str) -> None:
    column = np.arange(3)
    floats, skipped = column * 1.0, np.array([False, True, True])
    data = curve_format.pack(curve_format.Chunk(column, floats, floats, floats, floats, skipped, column))
    assert curve_format.unpack(data).step.tolist() == [0, 1, 2]
    assert curve_format.unpack(data).skipped.tolist() == [False, True, True]
    with pytest.raises(CorruptCurve, match=message):
        curve_format.unpack(damage(data))  # type: ignore[operator]


def test_chunks_of_the_first_format_are_read_and_filled_up(bench: Bench) -> None:
    """Its header and columns are written here as that version wrote them; it had no learning rates."""
    lease = bench.running()
    columns = [np.array([1, 2, 3], "<i8"), np.array([3.0, np.nan, 1.0]), np.array([0.5, 0.5, np.inf])]
    columns += [np.array([np.nan, np.nan, 2.5]), np.array([1, 1, 1], "<i8")]
    first = struct.pack("<4sHHI", b"GSCV", 1, 5, 3) + b"".join(column.tobytes() for column in columns)
    bench.record(lease, metrics(1, 1, points(1, 3)))
    with bench.database.write() as session:
        session.execute(text("UPDATE curve_chunks SET columns = :first"), {"first": first})
    bench.record(lease, metrics(1, 2, points(4, 10)))
    whole = curve(bench, lease.job_id)
    assert whole.step.tolist() == list(range(1, 14))
    assert whole.skipped.tolist() == [False, True, True, *points(4, 10).skipped], "they were what was not finite"
    np.testing.assert_array_equal(whole.learning_rate, [np.nan] * 3 + points(4, 10).learning_rate)
    old, new = bench.events(lease.job_id)
    assert (old.data["learning_rate"], old.data["skipped"]) == ([None] * 3, [False, True, True])
    assert new.points == points(4, 10)


losses = st.lists(st.floats(width=32) | st.sampled_from([1.0, math.nan, math.inf, -math.inf]), min_size=1, max_size=300)


@given(losses, st.integers(4, 120))
def test_downsampling_keeps_the_ends_the_extremes_and_the_failures(loss: list[float], max_points: int) -> None:
    values = np.array(loss)
    steps = np.arange(len(loss), dtype=np.int64)
    whole = Curve(steps, values, values, values, values, np.isnan(values))
    small = whole.downsampled(max_points)
    assert len(small) <= max_points
    assert (np.diff(small.step) > 0).all()
    np.testing.assert_array_equal(small.loss, values[small.step])
    assert {0, len(loss) - 1} <= set(small.step.tolist())
    if len(loss) <= max_points:
        assert len(small) == len(loss)
    finite = values[np.isfinite(values)]
    if len(finite):
        if max_points > 4 or len(finite) == len(values):  # else there is no room for both
            assert np.nanmin(np.where(np.isfinite(small.loss), small.loss, np.nan)) == finite.min()
        assert np.nanmax(np.where(np.isfinite(small.loss), small.loss, np.nan)) == finite.max()
    assert np.isfinite(small.loss).all() == np.isfinite(values).all()


def test_every_spike_of_its_own_stretch_is_kept() -> None:
    values = np.ones(10_000)
    spikes = [17, 2_500, 5_001, 9_990]
    values[spikes] = 50.0
    values[7_000] = np.nan
    steps = np.arange(10_000)
    small = Curve(steps, values, values, values, values, np.isnan(values)).downsampled(200)
    assert {*spikes, 7_000} <= set(small.step.tolist())


def test_fewer_than_four_points_show_nothing() -> None:
    steps = np.arange(10)
    with pytest.raises(ValueError, match="max_points is 3"):
        Curve(steps, *[steps * 1.0] * 4, steps > 5).downsampled(3)


def test_points_are_json_of_plain_numbers() -> None:
    values = Points([np.int64(1)], [np.float64(0.5)], [math.nan], [None], [np.float64(0.1)], [np.True_])  # type: ignore[list-item]
    columns = {"step": [1], "loss": [0.5], "gradient_norm": [None], "validation": [None]}
    assert values.as_json() == columns | {"learning_rate": [0.1], "skipped": [True]}
    assert {type(value) for column in values.as_json().values() for value in column} == {int, float, bool, type(None)}
