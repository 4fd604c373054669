"""Differences of two schemes on the same items, with intervals that know of the pairing.

What all schemes share, the difficulty of an image above all, cancels in the difference per item;
the interval of the mean difference is then much narrower than those of the two means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semsim.intervals import interval_of_mean

Array = NDArray[np.float64]

RESAMPLES = 2000
BLOCKS = 500  #: more items than that are resampled in so many groups, which keeps memory bounded
SHARE_LOST = 0.05  #: resamples that may have no common range before an interval is refused


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; NaN where there is none.

    Args:
        value: the number.
        low, high: the ends of its interval.
        n: independent units behind it: items, or trainings.
    """

    value: float
    low: float
    high: float
    n: int


def mean_of(values: Array) -> Estimate:
    """Return the mean of differences and its interval; zero is no limit and no special value."""
    away = float(values.max()) + 1.0  # moved there, since intervals of shares stop at 0 and 1
    low, high = interval_of_mean(values - away)
    return Estimate(float(values.mean()), float(low) + away, float(high) + away, len(values))


def difference(a: Array, b: Array, combine: Callable[[float], float] | None = None) -> Estimate:
    """Return how much a metric of scheme A exceeds that of B on the same items.

    Args:
        a, b: values per item, [n], of the same items in the same order.
        combine: the reported value for a mean over items, where it is not the mean itself; the
            interval is then that of its linearisation (delta method).
    """
    if a.shape != b.shape:
        raise ValueError(f"pairs need as many items on both sides, got {len(a)} and {len(b)}")
    if combine is None:
        if np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all():
            return _difference_of_shares(a, b)
        return mean_of(a - b)
    mean_a, mean_b = float(a.mean()), float(b.mean())
    value = combine(mean_a) - combine(mean_b)
    slope_a, slope_b = _slope(combine, mean_a), _slope(combine, mean_b)
    spread = mean_of(slope_a * (a - mean_a) - slope_b * (b - mean_b))
    return Estimate(value, value + spread.low, value + spread.high, len(a))


def _slope(combine: Callable[[float], float], mean: float) -> float:
    step = 1e-4 * abs(mean) or 1e-9
    return (combine(mean + step) - combine(mean - step)) / (2 * step)


def _difference_of_shares(a: Array, b: Array) -> Estimate:
    """Return the difference of two paired shares; never of width zero, also where none differ.

    Source: Newcombe, Improved confidence intervals for the difference between binomial proportions
        based on paired data (1998), method 10.
    """
    n = len(a)
    both, only_a, only_b = (int(np.sum(w)) for w in (a * b, a * (1 - b), (1 - a) * b))
    neither = n - both - only_a - only_b
    (low_a, high_a), (low_b, high_b) = _wilson(both + only_a, n), _wilson(both + only_b, n)
    share_a, share_b = (both + only_a) / n, (both + only_b) / n
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    covariance = float(both * neither - only_a * only_b)
    if covariance > 0:
        covariance = max(covariance - n / 2, 0.0)
    phi = covariance / margins**0.5 if margins else 0.0
    down_a, up_a = share_a - low_a, high_a - share_a
    down_b, up_b = share_b - low_b, high_b - share_b
    value = share_a - share_b
    down = (down_a**2 - 2 * phi * down_a * up_b + up_b**2) ** 0.5
    up = (down_b**2 - 2 * phi * down_b * up_a + up_a**2) ** 0.5
    return Estimate(value, value - down, value + up, n)


def _wilson(ones: int, n: int) -> tuple[float, float]:
    z2, share = 3.841458820694124, ones / n  # 1.96^2
    middle, half = share + z2 / (2 * n), (z2 * (share * (1 - share) + z2 / (4 * n)) / n) ** 0.5
    return (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)


def bootstrap(
    a: Array, b: Array, statistic: Callable[[Array, Array], Array], *, resamples: int = RESAMPLES
) -> list[Estimate]:
    """Return statistics of two curves with intervals from resampled items.

    An item is drawn with all that both schemes made of it at every point, so pairing holds. The
    spread over resamples is the standard error, and Student's t says how far the ends lie: with
    few items percentiles would be too narrow.

    Args:
        a, b: values per point and item, [points, n], of the same items.
        statistic: (means of a [curves, points], means of b) to numbers [curves, k].
        resamples: how many.

    Source: Efron, Tibshirani, An introduction to the bootstrap (1993), chapters 6 and 12.
    """
    n = a.shape[1]
    values = statistic(a.mean(axis=1)[None], b.mean(axis=1)[None])[0]
    if n < 2:
        return [Estimate(float(v), np.nan, np.nan, n) for v in values]
    a, b, size = _blocks(a), _blocks(b), min(n, BLOCKS)
    counts = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), resamples) / size
    drawn = statistic(counts @ a.T, counts @ b.T)
    halves = [_half_width(column, size) for column in drawn.T]
    return [Estimate(float(v), v - h, v + h, n) for v, h in zip(values, halves, strict=True)]


def _blocks(values: Array) -> Array:
    """Return means of as good as equal groups of items, [points, at most BLOCKS]."""
    if values.shape[1] <= BLOCKS:
        return values
    edges = np.linspace(0, values.shape[1], BLOCKS + 1).astype(int)
    return np.add.reduceat(values, edges[:-1], axis=1) / np.diff(edges)


def _half_width(drawn: Array, n: int) -> float:
    """Return half the width of an interval; NaN where many resamples had no such number."""
    from scipy import special

    lost = np.isnan(drawn)
    if lost.mean() > SHARE_LOST:
        return float("nan")
    t = float(special.stdtrit(n - 1, 0.975))
    return t * (n / (n - 1)) ** 0.5 * float(drawn[~lost].std())
