"""Bjontegaard's numbers are those of closed forms and of an independent quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest

from semsim.comparison.bjontegaard import Fit, gain_at, mean_difference, mean_gain, percent

SNR = np.array([0.0, 5.0, 10.0, 15.0, 20.0])
#: PSNR over kbit/s of two encoders, as such curves look
RATE_A, PSNR_A = np.log10([686.76, 309.58, 157.11, 85.95]), np.array([40.28, 37.18, 34.24, 31.42])
RATE_B, PSNR_B = np.log10([893.34, 407.8, 204.93, 112.75]), np.array([40.39, 37.21, 34.17, 31.24])


@pytest.mark.parametrize("fit", ["pchip", "cubic"])
def test_a_curve_moved_by_one_db_gains_one_db(fit: Fit) -> None:
    psnr = 20 + 10 * np.tanh(SNR / 10)
    assert mean_gain(SNR - 1, psnr, SNR, psnr, fit) == pytest.approx(1)
    assert mean_difference(SNR, psnr + 1, SNR, psnr, fit) == pytest.approx(1)


@pytest.mark.parametrize("fit", ["pchip", "cubic"])
def test_straight_lines_differ_as_geometry_says(fit: Fit) -> None:
    a, b = 20 + 0.8 * SNR, 18 + 1.0 * SNR
    assert mean_difference(SNR, a, SNR, b, fit) == pytest.approx(0)  # crosses at 10 dB
    # qualities 20 to 36 are common: SNR (q - 20) / 0.8 against q - 18
    gain = np.mean([(q - 18) - (q - 20) / 0.8 for q in (20, 36)])
    assert mean_gain(SNR, a, SNR, b, fit) == pytest.approx(gain)
    assert gain_at(5, 23.0, SNR, a) == pytest.approx(5 - 3 / 0.8)
    assert np.isnan(gain_at(20, 38.0, SNR, a)).all()


def test_half_the_channel_uses_are_minus_fifty_percent() -> None:
    uses, psnr = np.log10([1 / 48, 1 / 24, 1 / 12, 1 / 6]), np.array([24.0, 28, 31, 33])
    assert percent(mean_gain(uses - math.log10(2), psnr, uses, psnr)) == pytest.approx(-50)


@pytest.mark.parametrize("fit", ["pchip", "cubic"])
def test_deltas_are_those_of_an_independent_quadrature(fit: Fit) -> None:
    """The definition: mean distance of the fitted curves over the common range."""
    from scipy.interpolate import CubicHermiteSpline

    order = slice(None, None, -1)
    (xa, qa), (xb, qb) = (RATE_A[order], PSNR_A[order]), (RATE_B[order], PSNR_B[order])

    def curve(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
        if fit == "cubic":
            return np.polyval(np.polyfit(x, y, 3), at)
        return CubicHermiteSpline(x, y, _fritsch_carlson(x, y))(at)

    def mean(x_a: np.ndarray, y_a: np.ndarray, x_b: np.ndarray, y_b: np.ndarray) -> float:
        low, high = max(x_a[0], x_b[0]), min(x_a[-1], x_b[-1])
        at = low + (high - low) * (np.arange(20_000) + 0.5) / 20_000
        return float(np.mean(curve(x_a, y_a, at) - curve(x_b, y_b, at)))

    assert mean_difference(xa, qa, xb, qb, fit) == pytest.approx(mean(xa, qa, xb, qb), abs=1e-6)
    assert mean_gain(xa, qa, xb, qb, fit) == pytest.approx(-mean(qa, xa, qb, xb), abs=1e-6)


def _fritsch_carlson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the slopes of the piecewise cubic that does not overshoot, written out."""
    h, d = np.diff(x), np.diff(y) / np.diff(x)
    slopes = np.zeros(len(x))
    for k in range(1, len(x) - 1):
        if d[k - 1] * d[k] > 0:
            w1, w2 = 2 * h[k] + h[k - 1], h[k] + 2 * h[k - 1]
            slopes[k] = (w1 + w2) / (w1 / d[k - 1] + w2 / d[k])
    for end, (h0, h1, d0, d1) in {
        0: (h[0], h[1], d[0], d[1]),
        -1: (h[-1], h[-2], d[-1], d[-2]),
    }.items():
        slope = ((2 * h0 + h1) * d0 - h0 * d1) / (h0 + h1)
        if slope * d0 <= 0:
            slope = 0.0
        elif d0 * d1 <= 0 and abs(slope) > 3 * abs(d0):
            slope = 3 * d0
        slopes[end] = slope
    return slopes


def test_where_quality_does_not_grow_the_first_point_that_reaches_it_counts() -> None:
    flat = np.array([20.0, 25.0, 30.0, 30.0, 29.0])
    assert mean_gain(SNR, flat, SNR + 2, flat) == pytest.approx(2)


def test_curves_without_common_quality_have_no_gain() -> None:
    assert np.isnan(mean_gain(SNR, SNR + 100, SNR, SNR)).all()
    assert math.isnan(mean_difference(SNR, SNR, SNR + 50, SNR))


def test_a_cubic_needs_four_points() -> None:
    with pytest.raises(ValueError, match="four points on each curve, got 2; use pchip"):
        mean_difference(SNR[:2], SNR[:2], SNR[:2], SNR[:2], "cubic")
