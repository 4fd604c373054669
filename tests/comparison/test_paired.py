"""Paired intervals are narrow, and they cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from semsim.comparison.bjontegaard import mean_gain
from semsim.comparison.paired import bootstrap, difference
from semsim.intervals import with_reach


def test_what_both_schemes_share_cancels() -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(30, 5, 200)
    a, b = image + rng.normal(0.5, 0.1, 200), image
    got = difference(a, b)
    unpaired = 1.96 * math.sqrt(a.var(ddof=1) / 200 + b.var(ddof=1) / 200)
    assert got.low < 0.5 < got.high
    assert got.high - got.low < unpaired / 10


def test_five_photos_give_student_s_interval_of_their_differences() -> None:
    from scipy import stats

    a, b = np.array([26.2, 31.0, 28.5, 30.1, 31.0]), np.array([25.0, 30.9, 28.9, 29.0, 30.7])
    low, high = stats.ttest_rel(a, b).confidence_interval()
    got = difference(a, b)
    assert (got.low, got.high) == pytest.approx((low, high), rel=1e-9)


@pytest.mark.parametrize("shift", [0.0, 1.0, -1.0])
def test_zero_is_no_limit_of_a_difference(shift: float) -> None:
    a = np.array([0.3, 0.4, 0.5, 0.9])
    plain, moved = difference(a, a * 0), difference(a + shift, a * 0)
    assert moved.low == pytest.approx(plain.low + shift)
    assert plain.low < 0.2


def test_what_is_equal_item_by_item_differs_by_nothing() -> None:
    values = np.array([26.2, 31.0, 28.5, 30.1, 31.0])
    got = difference(values, values)
    assert (got.value, got.low, got.high) == (0.0, 0.0, 0.0)
    assert with_reach(got.value, got.low, got.high, signed=True) == "+0±0"


def test_differences_of_decisions_cover() -> None:
    """20 % against 10 %, coupled; 2,000 trials: below 0.93 by chance once in 10,000."""
    rng, hits, truth = np.random.default_rng(2), 0, 0.2 - _share_below(0.1)
    for _ in range(2000):
        common = rng.random(50)
        a, b = common < 0.2, common + rng.normal(0, 0.05, 50) < 0.1
        got = difference(a.astype(float), b.astype(float))
        hits += got.low <= truth <= got.high
    assert hits / 2000 > 0.93


def _share_below(limit: float, spread: float = 0.05) -> float:
    """Return P(U + spread Z < limit) by quadrature."""
    from scipy import special

    u = (np.arange(100_000) + 0.5) / 100_000
    return float(special.ndtr((limit - u) / spread).mean())


def test_decisions_that_never_differ_leave_room_for_doubt() -> None:
    got = difference(np.ones(10), np.ones(10))
    assert got.value == 0
    assert got.low < -0.1 and got.high > 0.1


def test_a_metric_that_is_no_mean_has_the_interval_of_the_delta_method() -> None:
    """Coverage of PSNR of the mean MSE; 1,000 trials: below 0.925 by chance once in 5,000."""
    rng, hits = np.random.default_rng(3), 0

    def combine(mean: float) -> float:
        return -10 * math.log10(mean)

    for _ in range(1000):
        image = rng.gamma(5.0, 1.0, 60)
        a, b = image * rng.uniform(0.5, 1.5, 60), image * rng.uniform(1.0, 3.0, 60)
        got = difference(a, b, combine)
        hits += got.low <= 10 * math.log10(2) <= got.high
    assert hits / 1000 > 0.925


@pytest.mark.parametrize("n", [6, 40])
def test_bootstrap_intervals_of_a_gain_cover(n: int) -> None:
    """A scheme that needs 1 dB less; 2,000 trials: below 0.935 by chance once in 500."""
    rng, hits, snrs = np.random.default_rng(n), 0, np.array([0.0, 5.0, 10.0])

    def gain(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return mean_gain(snrs, a, snrs, b)[:, None]

    for _ in range(2000):
        image = rng.normal(20, 3, n)
        b = image + snrs[:, None] + rng.normal(0, 1, (3, n))
        a = image + 1 + snrs[:, None] + rng.normal(0, 1, (3, n))
        (got,) = bootstrap(a, b, gain, resamples=200)
        hits += got.low <= 1 <= got.high
    assert hits / 2000 > 0.935


def test_bootstrap_of_many_items_goes_by_blocks_and_agrees_with_the_closed_form() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(1, 1, (2, 100_000)), rng.normal(0, 1, (2, 100_000))
    got = bootstrap(a, b, lambda a, b: a - b)[0]
    plain = difference(a[0], b[0])
    assert got.value == pytest.approx(plain.value)
    # 500 blocks, 2,000 resamples: ends known to about a tenth of the width
    assert (got.low, got.high) == pytest.approx((plain.low, plain.high), abs=0.003)
