"""Intervals hold the mean as often as they say: outages, fading, shares, and stopping early."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from semsim.intervals import Moments, Tally, interval_of_mean, interval_of_ratio, with_reach
from semsim.metrics.image import PSNR
from semsim.metrics.signal import BER
from semsim.phy.theory import qam_ber_rayleigh

Array = NDArray[np.float64]
RUNS = 4000
LEAST = 0.93 - 3 * math.sqrt(0.93 * 0.07 / RUNS)  # an interval that holds 0.93 fails once in 740


def psnr(n: int, outage: float, *, runs: int = RUNS) -> Array:
    """PSNR of items [runs, n]: 31 dB, or 14.7 dB where the image is lost."""
    draw = np.random.default_rng(n)
    lost = draw.random((runs, n)) < outage
    return np.where(lost, draw.normal(14.7, 2, (runs, n)), draw.normal(31, 2, (runs, n)))


def qpsk_ber(n: int, snr_db: float, *, runs: int = RUNS, bits: int = 1024) -> Array:
    """Bit error rate of items [runs, n] in block Rayleigh fading."""
    draw = np.random.default_rng(n)
    snr = 10 ** (snr_db / 10) * draw.exponential(size=(runs, n))
    return draw.binomial(bits, special.ndtr(-np.sqrt(snr))) / bits


def coverage(values: Array, mean: float, worst: float | None) -> float:
    low, high = interval_of_mean(values, worst=worst)
    return float(((low <= mean) & (mean <= high)).mean())


@pytest.mark.parametrize("outage", [0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("n", [5, 8, 10, 12])
def test_few_images_cover_an_outage_that_they_may_not_have_seen(n: int, outage: float) -> None:
    assert coverage(psnr(n, outage), 31 - 16.3 * outage, PSNR.worst) > LEAST


@pytest.mark.parametrize("n", [13, 16, 20, 24, 50])
def test_an_outage_of_one_item_in_five_is_covered(n: int) -> None:
    assert coverage(psnr(n, 0.2), 31 - 16.3 * 0.2, PSNR.worst) > LEAST


@pytest.mark.parametrize("outage", [0.05, 0.1])
@pytest.mark.parametrize("n", [13, 14, 16, 20, 24, 32, 50])
def test_a_rare_outage_is_covered_as_soon_as_one_was_seen(n: int, outage: float) -> None:
    draw = np.random.default_rng(n)
    lost = draw.random((RUNS, n)) < outage
    values = np.where(lost, draw.normal(14.7, 2, (RUNS, n)), draw.normal(31, 2, (RUNS, n)))
    seen = lost.any(axis=1)
    low, high = interval_of_mean(values, worst=PSNR.worst)
    mean = 31 - 16.3 * outage
    holds = (low <= mean) & (mean <= high)
    few = 0.95 - 3 * math.sqrt(0.95 * 0.05 / seen.sum())
    assert (
        holds[seen].mean() > few
    )  # overlooked by all items, (1 - outage)^n of the runs, it may not
    lost_only = (1 - outage) ** n
    assert holds.mean() > 1 - lost_only - 3 * math.sqrt(lost_only * (1 - lost_only) / RUNS) - 0.03


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0, 30.0, 40.0])
@pytest.mark.parametrize("n", [100, 1000])
def test_bit_errors_in_block_rayleigh_fading_are_covered(n: int, snr_db: float) -> None:
    values = qpsk_ber(n, snr_db, runs=RUNS if n == 100 else 1000)
    assert coverage(values, qam_ber_rayleigh(snr_db), BER.worst) > 0.93


@pytest.mark.parametrize("error_rate", [1e-5, 1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("n", [5, 100])
def test_bit_errors_in_white_noise_are_covered(n: int, error_rate: float) -> None:
    values = np.random.default_rng(n).binomial(1024, error_rate, (RUNS, n)) / 1024
    assert coverage(values, error_rate, BER.worst) > LEAST


@pytest.mark.parametrize("share", [0.02, 0.5, 0.835, 0.98])
@pytest.mark.parametrize("n", [10, 50])
def test_a_share_is_covered(n: int, share: float) -> None:
    values = (np.random.default_rng(n).random((RUNS, n)) < share).astype(np.float64)
    assert coverage(values, share, 0.0) > LEAST


@pytest.mark.parametrize("n", [5, 9, 10, 24, 100])
def test_paired_differences_are_covered_without_a_bound(n: int) -> None:
    draw = np.random.default_rng(n)
    assert coverage(0.46 + draw.normal(0, 1, (RUNS, n)), 0.46, None) > LEAST


@pytest.mark.parametrize(("n", "wider"), [(14, 1.12), (24, 1.04), (100, 1.01)])
def test_without_outage_the_interval_is_hardly_wider_than_students(n: int, wider: float) -> None:
    values = psnr(n, 0.0)
    low, high = interval_of_mean(values, worst=PSNR.worst)
    student = 2 * stats.t.ppf(0.975, n - 1) * values.std(axis=1, ddof=1) / math.sqrt(n)
    assert 1 <= (high - low).mean() / student.mean() < wider


def test_below_ten_items_differences_have_students_interval() -> None:
    values = np.array([0.1, 0.5, -0.2, 3.0, 0.4])
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert interval_of_mean(values) == pytest.approx((low, high))


def test_five_images_without_outage_allow_for_one() -> None:
    low, high = interval_of_mean([30.9, 31.0, 31.1, 31.0, 31.0], worst=PSNR.worst)
    assert low == pytest.approx(31 - (31 - PSNR.worst) / 4)
    assert 31 < high < 31.2


def test_values_in_batches_have_the_interval_of_the_whole() -> None:
    values = psnr(200, 0.1, runs=1)[0]
    moments = Moments()
    for batch in np.split(values, [1, 30, 31]):
        moments.add(batch)
    assert moments.m3 == pytest.approx(((values - values.mean()) ** 3).sum(), rel=1e-10)
    np.testing.assert_allclose(
        moments.interval(worst=PSNR.worst), interval_of_mean(values, worst=PSNR.worst), rtol=1e-12
    )


def test_many_sets_of_items_have_the_intervals_of_each() -> None:
    values = np.stack([qpsk_ber(30, 20.0, runs=1)[0], np.zeros(30), np.ones(30), np.full(30, 0.5)])
    low, high = interval_of_mean(values, worst=0.5)
    for row, ends in zip(values, zip(low, high, strict=True), strict=True):
        assert interval_of_mean(row, worst=0.5) == pytest.approx(ends)
    assert low[0] >= 0
    assert high[1] == pytest.approx(1 - 0.025 ** (1 / 30))
    assert (low[3], high[3]) == (0.5, 0.5)


@pytest.mark.parametrize(("share", "n"), [(0.9, 60), (0.5, 40), (0.05, 100), (0.05, 200)])
def test_the_interval_of_a_ratio_covers_it_at_both_ends(share: float, n: int) -> None:
    rng = np.random.default_rng(5)
    below, above, runs = 0, 0, 400
    for _ in range(runs):
        arrives = rng.random(n) < share
        rounds = np.where(arrives, rng.integers(1, 5, n), 4).astype(float)  # who fails took all
        bits = np.where(arrives, 1000.0, 0.0)
        values, uses = Moments(), Moments()
        for part in (slice(0, 7), slice(7, n)):  # in batches
            values.add(bits[part]), uses.add(rounds[part]), values.pair(bits[part], rounds[part])
        low, high = interval_of_ratio(values, uses, worst=0.0)
        truth = 1000 * share / (2.5 * share + 4 * (1 - share))
        below, above = below + (high < truth), above + (low > truth)
    # each tail holds 0.025, plus 4 standard errors of 400 runs
    assert max(below, above) / runs < 0.025 + 4 * (0.025 * 0.975 / runs) ** 0.5
    wide = (high - low) / 2 / (1.96 * truth * ((1 - share) / share / n) ** 0.5)
    assert wide < 2.5  # no more than that times the share's own part alone, normal


def test_a_ratio_of_which_nothing_arrived_has_no_interval() -> None:
    values, uses = Moments(), Moments()
    values.add([0.0] * 20), uses.add([4.0] * 20), values.pair([0.0] * 20, [4.0] * 20)
    assert np.isnan(interval_of_ratio(values, uses)).all()


def test_a_single_item_says_nothing() -> None:
    assert np.isnan(interval_of_mean([31.0], worst=PSNR.worst)).all()


def stopped(values: Array, goal: float, worst: float, *, batch: int = 64) -> tuple[float, Array]:
    """Return the mean of the values at which the stop rule ends a run, and the interval's ends."""
    runs = len(values)
    mean, open_runs = np.empty(runs), np.arange(runs)
    ends = np.empty((2, runs))
    for n in range(2 * batch, values.shape[1] + 1, batch):
        low, high = interval_of_mean(values[open_runs, :n], worst=worst)
        done = ((high - low) / 2 <= goal) | (n + batch > values.shape[1])
        mean[open_runs[done]] = values[open_runs[done], :n].mean(axis=1)
        ends[:, open_runs[done]] = low[done], high[done]
        open_runs = open_runs[~done]
    return float(mean.mean()), ends


@pytest.mark.parametrize(("snr_db", "relative"), [(10.0, 0.3), (20.0, 0.3), (20.0, 0.5)])
def test_a_goal_for_the_interval_biases_no_bit_error_rate(snr_db: float, relative: float) -> None:
    true = qam_ber_rayleigh(snr_db)
    found, (low, high) = stopped(qpsk_ber(4000, snr_db, runs=800), relative * true, BER.worst)
    assert (
        abs(found / true - 1) < 0.2 * relative
    )  # Student's interval alone: -0.16 in the last case
    assert ((low <= true) & (true <= high)).mean() > 0.93 - 3 * math.sqrt(0.93 * 0.07 / 800)


def test_a_goal_for_the_interval_biases_no_psnr_under_outage() -> None:
    true = 31 - 16.3 * 0.05
    found, (low, high) = stopped(psnr(1500, 0.05, runs=800), 0.5, PSNR.worst)
    assert abs(found - true) < 0.1
    assert ((low <= true) & (true <= high)).mean() > 0.93 - 3 * math.sqrt(0.93 * 0.07 / 800)


@pytest.mark.parametrize(
    ("ends", "signed", "text"),
    [
        ((25.0, 24.0, 26.0), False, "25±1"),
        ((25.0, 23.98, 26.02), False, "25±1"),
        ((25.0, 24.0, 26.4), False, "25 -1/+1.4"),
        ((24.42, 19.01, 28.57), False, "24.42 -5.4/+4.1"),
        ((-2.933, -6.51, 2.10), True, "-2.933 -3.6/+5"),
        ((25.0, 24.0, 27.0), False, "25 -1/+2"),
        ((1.0, 0.4, 1.0), False, "1 -0.6/+0"),
        ((0.5, 0.1, 0.9), True, "+0.5±0.4"),
        ((25.0, math.nan, math.nan), False, "25"),
    ],
)
def test_an_interval_is_written_with_both_sides_where_they_differ_in_a_digit(
    ends: tuple[float, float, float], signed: bool, text: str
) -> None:
    assert with_reach(*ends, signed=signed) == text


def test_a_state_that_was_taken_holds_the_items_it_counts_though_more_come() -> None:
    tally = Tally([Moments(kept=[])])
    tally.values[0].add([1.0, 0.0])
    state = tally.as_dict()
    tally.values[0].add([1.0])  # of a batch that is interrupted before its last SNR
    (again,) = Tally.from_dict(state).values
    assert (again.n, again.kept) == (2, [1.0, 0.0])
