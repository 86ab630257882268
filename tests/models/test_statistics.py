"""Statistics against scipy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.statistics import Bootstrap, compare, curve_quantiles, interval, summary

RNG = np.random.default_rng(0)
LEARNED = RNG.lognormal(0.0, 1.0, 200)
BASELINE = LEARNED * RNG.lognormal(0.3, 0.4, 200)


def test_the_interval_of_a_mean_is_scipys_bootstrap(stats):
    ours = summary(LEARNED, Bootstrap(200, 20_000, 1))
    theirs = stats.bootstrap(
        (LEARNED,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.interval == pytest.approx((theirs.low, theirs.high), rel=0.01)
    assert ours.mean == pytest.approx(LEARNED.mean())
    assert (ours.q10, ours.median, ours.q90) == pytest.approx(tuple(np.quantile(LEARNED, [0.1, 0.5, 0.9])))


def test_for_normal_data_it_is_the_closed_form():
    values = np.random.default_rng(3).normal(5.0, 2.0, 2000)
    low, high = summary(values, Bootstrap(2000, 5000, 0)).interval
    half = 1.96 * values.std() / np.sqrt(2000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_paired_comparisons_are_scipys_paired_bootstrap(stats):
    found = compare(LEARNED, BASELINE, Bootstrap(200, 20_000, 1))

    def ratio(a, b, axis=-1):
        return a.mean(axis=axis) / b.mean(axis=axis)

    theirs = stats.bootstrap(
        (LEARNED, BASELINE), ratio, paired=True, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert found.ratio_interval == pytest.approx((theirs.low, theirs.high), rel=0.02)
    difference = stats.bootstrap(
        (LEARNED - BASELINE,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert found.difference_interval == pytest.approx((difference.low, difference.high), rel=0.05)
    assert found.ratio_of_means == pytest.approx(LEARNED.mean() / BASELINE.mean())
    assert found.ratio_of_medians == pytest.approx(np.median(LEARNED) / np.median(BASELINE))
    assert found.share_won == pytest.approx(np.mean(LEARNED < BASELINE))
    assert found.verdict == "wins"


def test_the_verdicts():
    bootstrap = Bootstrap(200, 500, 0)
    assert compare(LEARNED, LEARNED * 1.1, bootstrap).verdict == "wins"
    assert compare(LEARNED * 1.1, LEARNED, bootstrap).verdict == "loses"
    even = compare(LEARNED, LEARNED, bootstrap)
    assert (even.verdict, even.share_won, even.ratio_interval) == ("ties", 0.5, (1.0, 1.0))
    noisy = LEARNED * np.random.default_rng(1).lognormal(0.0, 0.3, 200)
    assert compare(LEARNED, noisy, bootstrap).verdict == "ties"


def test_losses_without_a_ratio_are_judged_by_their_difference():
    """Negative ones, as log-likelihoods are, and baselines that are zero on every task."""
    bootstrap = Bootstrap(200, 500, 0)
    lower, higher = LEARNED - 10.0, LEARNED - 9.5
    better, worse = compare(lower, higher, bootstrap), compare(higher, lower, bootstrap)
    assert (better.verdict, better.medians_verdict, better.share_won) == ("wins", "wins", 1.0)
    assert (worse.verdict, worse.medians_verdict) == ("loses", "loses")
    assert np.isnan([better.ratio_of_means, *better.ratio_interval, better.ratio_of_medians]).all()
    assert better.difference_interval == pytest.approx((-0.5, -0.5))
    nothing = np.zeros(200)
    assert compare(nothing, nothing, bootstrap).verdict == "ties"
    assert compare(LEARNED, nothing, bootstrap).verdict == "loses"
    assert compare(nothing, LEARNED, bootstrap).ratio_of_means == 0.0


def test_the_coverage_of_the_interval_is_near_95_percent():
    covered = 0
    for trial in range(300):
        values = np.random.default_rng(trial).normal(1.0, 1.0, 60)
        low, high = summary(values, Bootstrap(60, 400, trial)).interval
        covered += low <= 1.0 <= high
    assert 0.90 <= covered / 300 <= 0.985


def test_one_seed_gives_one_interval_and_chunks_do_not_matter(monkeypatch):
    whole = Bootstrap(200, 300, 7).means(LEARNED)
    assert np.array_equal(whole, Bootstrap(200, 300, 7).means(LEARNED))
    monkeypatch.setattr("models.evaluation.statistics._CELLS_AT_ONCE", 200 * 64)
    np.testing.assert_allclose(Bootstrap(200, 300, 7).means(LEARNED), whole, rtol=1e-12)


def test_the_interval_of_a_ratio_of_medians_is_scipys_paired_bootstrap(stats):
    found = compare(LEARNED, BASELINE, Bootstrap(200, 3000, 1))

    def ratio(a, b, axis=-1):
        return np.median(a, axis=axis) / np.median(b, axis=axis)

    theirs = stats.bootstrap(
        (LEARNED, BASELINE), ratio, paired=True, n_resamples=3000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert found.medians_interval == pytest.approx((theirs.low, theirs.high), rel=0.04)
    assert found.medians_verdict == "wins"


@pytest.mark.parametrize("tasks", [1, 2, 7, 8])
def test_medians_are_numpys_of_the_drawn_tasks(tasks):
    values = np.random.default_rng(tasks).normal(size=tasks)
    values[0] = np.inf
    bootstrap = Bootstrap(tasks, 50, 3)
    drawn = np.random.default_rng(3).integers(0, tasks, size=(50, tasks))
    assert bootstrap.medians(values).tolist() == np.median(values[drawn], axis=1).tolist()


def test_a_few_hard_tasks_move_the_ratio_of_means_and_not_that_of_medians():
    hard = LEARNED.copy()
    rival = BASELINE.copy()
    hard[:4] = rival[:4] = 1e5
    found = compare(hard, rival, Bootstrap(200, 1000, 0))
    assert found.ratio_of_means == pytest.approx(1.0, abs=0.02)
    assert found.medians_interval[1] < 1
    assert found.medians_verdict == "wins"


def test_divergence_decides_without_a_bootstrap():
    bootstrap = Bootstrap(200, 200, 0)
    broken = np.where(np.arange(200) == 5, np.inf, LEARNED)
    assert compare(LEARNED, broken, bootstrap).verdict == "wins"
    assert compare(broken, LEARNED, bootstrap).verdict == "loses"
    assert compare(broken, broken, bootstrap).verdict == "ties"
    assert compare(broken, BASELINE, bootstrap).ratio_of_medians < 1
    described = summary(broken, bootstrap)
    assert described.mean == np.inf
    assert np.isfinite(described.q90)


def test_curves_are_summarised_step_by_step():
    losses = np.abs(np.random.default_rng(0).normal(size=(4, 50)))
    losses[2, 3] = np.inf
    bootstrap = Bootstrap(50, 1000, 0)
    found = curve_quantiles(losses, bootstrap)
    assert np.isinf(found["mean"]).tolist() == [False, False, True, False]
    assert np.isfinite(found["median"]).all()
    np.testing.assert_allclose(found["mean"][0], losses[0].mean())
    low, high = interval(bootstrap.means(losses[0]))
    assert (found["low"][0], found["high"][0]) == pytest.approx((low, high))
    assert found["low"][0] < found["mean"][0] < found["high"][0]
