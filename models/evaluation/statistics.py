"""What can be said about paired losses: quantiles, bootstrap intervals, ratios and verdicts.

Every optimizer runs on the SAME tasks, so differences and ratios are bootstrapped by drawing tasks, with both
optimizers' losses on each. Percentile intervals (Efron 1979), 95 %, from a seeded generator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Whole = NDArray[np.int32]
Verdict = Literal["wins", "ties", "loses"]

LOW, HIGH = 2.5, 97.5
_CELLS_AT_ONCE = 1_000_000
_CELLS_KEPT = 2_000_000


@dataclass(frozen=True)
class Summary:
    """Summary of one number per task: the mean with its bootstrap interval, and the quantiles."""

    mean: float
    median: float
    q10: float
    q90: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """Learned against a baseline on paired tasks. Below 1, or below 0 for the difference, the learned one is better.

    ratio_interval: 95 % paired bootstrap interval of the ratio of means, which the verdict looks at
    medians_interval: the same of the ratio of medians, which a few hard tasks do not move
    share_won: share of tasks on which the learned loss is lower; a tie counts half
    """

    ratio_of_means: float
    ratio_interval: tuple[float, float]
    ratio_of_medians: float
    medians_interval: tuple[float, float]
    share_won: float
    difference_interval: tuple[float, float]
    verdict: Verdict
    medians_verdict: Verdict


class Bootstrap:
    """Resamples of `tasks` tasks, the same for every quantity, so that intervals are comparable."""

    def __init__(self, tasks: int, samples: int, seed: int) -> None:
        self._tasks = tasks
        self._samples = samples
        self._seed = seed
        self._kept: list[Floats] | None = None
        self._kept_by_task: list[Whole] | None = None
        self._medians: dict[bytes, Floats] = {}  # those of the learned optimizer are asked for again and again

    def means(self, values: Floats) -> Floats:
        """Means over resampled tasks: (tasks,) -> (samples,), or (rows, tasks) -> (rows, samples)."""
        return np.concatenate([values @ counts.T for counts in self._counts()], axis=-1) / self._tasks

    def medians(self, values: Floats) -> Floats:
        """Medians over resampled tasks: (tasks,) -> (samples,). They may be infinite."""
        key = hashlib.blake2b(values.tobytes()).digest()
        if key not in self._medians:
            self._medians[key] = self._resampled_medians(values)
        return self._medians[key]

    def _resampled_medians(self, values: Floats) -> Floats:
        order = np.argsort(values)
        ranks = (self._tasks - 1) // 2, self._tasks // 2  # the same one where the number of tasks is odd
        found = []
        for counts in self._by_task():
            upto = np.cumsum(counts[order], axis=0, dtype=np.int32)
            low, high = (values[order[np.count_nonzero(upto <= rank, axis=0)]] for rank in ranks)
            found.append(low / 2 + high / 2)
        return np.concatenate(found)

    def _by_task(self) -> Iterable[Whole]:
        """The counts with a row for each task, (tasks, resamples): rows are put in order by copying, and added up by
        vectors, which takes a quarter of the time that columns take."""
        if self._tasks * self._samples > _CELLS_KEPT:
            return (_turned(counts) for counts in self._drawn())
        if self._kept_by_task is None:
            self._kept_by_task = [_turned(counts) for counts in self._counts()]
        return self._kept_by_task

    def _counts(self) -> Iterable[Floats]:
        """Drawing takes longer than what is done with it, so what is small is drawn once: 16 MB at most."""
        if self._tasks * self._samples > _CELLS_KEPT:
            return self._drawn()
        if self._kept is None:
            self._kept = list(self._drawn())
        return self._kept

    def _drawn(self) -> Iterator[Floats]:
        # A resample is how often each task was drawn: one matrix product makes the means of all rows.
        generator = np.random.default_rng(self._seed)
        at_once = max(1, _CELLS_AT_ONCE // self._tasks)
        for first in range(0, self._samples, at_once):
            count = min(at_once, self._samples - first)
            drawn = generator.integers(0, self._tasks, size=(count, self._tasks))
            drawn += np.arange(count)[:, None] * self._tasks
            counts = np.bincount(drawn.ravel(), minlength=count * self._tasks).reshape(count, self._tasks)
            yield counts.astype(np.float64)


def _turned(counts: Floats) -> Whole:
    return np.ascontiguousarray(counts.T, dtype=np.int32)


def interval(resampled: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap replicates, which may be infinite."""
    low, high = _at_shares(resampled, (LOW / 100, HIGH / 100))
    return float(low), float(high)


def summary(values: Floats, bootstrap: Bootstrap) -> Summary:
    """Summarizes (tasks,) numbers. A non-finite one makes the mean and its interval infinite; quantiles remain."""
    q10, median, q90 = _quantiles(values, (0.1, 0.5, 0.9))
    if not np.isfinite(values).all():
        return Summary(np.inf, median, q10, q90, (np.inf, np.inf))
    return Summary(float(values.mean()), median, q10, q90, interval(bootstrap.means(values)))


def compare(learned: Floats, baseline: Floats, bootstrap: Bootstrap) -> Comparison:
    """Paired: `learned[i]` and `baseline[i]` are losses on the same task."""
    share_won = float(np.mean(learned < baseline) + 0.5 * np.mean(learned == baseline))
    ratio, ratios, differences = _of_means(learned, baseline, bootstrap)
    medians, medians_interval, of_medians = np.nan, (np.nan, np.nan), (np.nan, np.nan)
    if _has_ratio(learned, baseline):
        medians = _ratio(_quantiles(learned, (0.5,))[0], _quantiles(baseline, (0.5,))[0])
        if not np.isnan(medians):
            medians_interval = interval(_ratios(bootstrap.medians(learned), bootstrap.medians(baseline)))
    elif np.isfinite(learned).all() and np.isfinite(baseline).all():
        of_medians = interval(bootstrap.medians(learned) - bootstrap.medians(baseline))
    return Comparison(
        ratio_of_means=ratio,
        ratio_interval=ratios,
        ratio_of_medians=medians,
        medians_interval=medians_interval,
        share_won=share_won,
        difference_interval=differences,
        verdict=_verdict(ratios, differences),
        medians_verdict=_verdict(medians_interval, of_medians),
    )


def verdict_of(learned: Floats, baseline: Floats, bootstrap: Bootstrap) -> Verdict:
    """The verdict of `compare`, without the rest: medians take a hundred times as long as means."""
    _, ratios, differences = _of_means(learned, baseline, bootstrap)
    return _verdict(ratios, differences)


def _of_means(
    learned: Floats, baseline: Floats, bootstrap: Bootstrap
) -> tuple[float, tuple[float, float], tuple[float, float]]:
    """The ratio of means, its interval, and the interval of their difference. A mean that is infinite on one side
    needs no bootstrap; infinite on both sides decides nothing. Where losses have no ratio, it and its interval are
    NaN."""
    learned_ends, baseline_ends = bool(np.isfinite(learned).all()), bool(np.isfinite(baseline).all())
    if learned_ends and baseline_ends:
        learned_means, baseline_means = bootstrap.means(learned), bootstrap.means(baseline)
        differences = interval(learned_means - baseline_means)
        if not _has_ratio(learned, baseline):
            return np.nan, (np.nan, np.nan), differences
        ratio = _ratio(float(learned.mean()), float(baseline.mean()))
        return ratio, interval(_ratios(learned_means, baseline_means)), differences
    if learned_ends:
        ratio, difference = 0.0, -np.inf
    elif baseline_ends:
        ratio, difference = np.inf, np.inf
    else:
        ratio, difference = np.nan, np.nan
    return ratio, (ratio, ratio), (difference, difference)


def _has_ratio(learned: Floats, baseline: Floats) -> bool:
    """Whether a ratio says which is better: no loss is negative, as a log-likelihood may be, and the baseline's are not
    all zero."""
    return not bool((learned < 0).any() or (baseline < 0).any()) and bool((baseline > 0).any())


def _verdict(ratios: tuple[float, float], differences: tuple[float, float]) -> Verdict:
    """What the 95 % interval of a ratio learned / baseline says, or that of the difference where there is no ratio; an
    interval that is not known says nothing."""
    (low, high), even = (differences, 0.0) if np.isnan(ratios[0]) else (ratios, 1.0)
    return "wins" if high < even else "loses" if low > even else "ties"


def _ratios(numerators: Floats, denominators: Floats) -> Floats:
    """Replicates of a ratio. Two infinite ones are equal: the ratio 1 speaks for neither."""
    both = np.isinf(numerators) & np.isinf(denominators)
    denominators = np.maximum(denominators, np.finfo(np.float64).tiny)
    return np.divide(numerators, denominators, out=np.ones_like(numerators), where=~both)


def _quantiles(values: Floats, at: tuple[float, ...]) -> list[float]:
    return [float(q) for q in _at_shares(values, at)]


def _at_shares(values: Floats, at: tuple[float, ...]) -> Floats:
    """Quantiles over the last axis: (..., tasks) -> (quantiles, ...)."""
    # Interpolating towards infinity gives NaN; the order statistics themselves never do.
    found: Floats = np.quantile(values, at, axis=-1, method="linear" if np.isfinite(values).all() else "higher")
    return found


def _ratio(numerator: float, denominator: float) -> float:
    if denominator == 0:
        return np.nan if numerator == 0 else np.inf
    return numerator / denominator


def curve_quantiles(losses: Floats, bootstrap: Bootstrap) -> dict[str, Floats]:
    """Step by step over tasks: (steps, tasks) -> mean, median, q10, q90, and low, high of the mean, (steps,) each."""
    q10, median, q90 = _at_shares(losses, (0.1, 0.5, 0.9))
    finite = np.isfinite(losses).all(axis=1)
    mean = np.where(finite, np.where(np.isfinite(losses), losses, 0.0).mean(axis=1), np.inf)
    low, high = np.full_like(mean, np.inf), np.full_like(mean, np.inf)
    if finite.any():
        low[finite], high[finite] = np.percentile(bootstrap.means(losses[finite]), [LOW, HIGH], axis=1)
    return {"mean": mean, "median": median, "q10": q10, "q90": q90, "low": low, "high": high}
