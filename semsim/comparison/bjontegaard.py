"""Mean differences and mean gains between two curves, after Bjontegaard, for many curves at once.

    quality ^      A ___---     difference: vertical, at equal SNR or equal channel uses
            |   _--  __- B      gain:       horizontal, at equal quality
            +------------> SNR in dB, or log10 of channel uses

x is shared by all curves of a scheme, [P]; quality has one row per curve, [..., P].

Sources: Bjontegaard, Calculation of average PSNR differences between RD-curves, VCEG-M33 (2001),
fits one cubic; the sheet of HEVC's common test conditions, JCTVC-L1100 (2013), fits piecewise ones,
which is the default. Fritsch, Butland, A method for constructing local monotone piecewise cubic
interpolants (1984).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Fit = Literal["pchip", "cubic"]

FITS: tuple[Fit, ...] = ("pchip", "cubic")


def mean_difference(x_a: Array, q_a: Array, x_b: Array, q_b: Array, fit: Fit = "pchip") -> Array:
    """Return the mean of A's quality over B's, over the range of x that both cover, [...].

    Args:
        x_a, x_b: SNR in dB, or log10 of channel uses, growing.
        q_a, q_b: quality there, such as PSNR in dB.
        fit: ``pchip``, piecewise, or ``cubic``, one polynomial.

    Returns:
        NaN where the curves have no x in common.
    """
    (x_a, q_a), (x_b, q_b) = np.broadcast_arrays(x_a, q_a), np.broadcast_arrays(x_b, q_b)
    low = np.maximum(x_a[..., 0], x_b[..., 0])
    high = np.minimum(x_a[..., -1], x_b[..., -1])
    width = np.where(low < high, high - low, np.nan)
    return (_area(x_a, q_a, low, high, fit) - _area(x_b, q_b, low, high, fit)) / width


def mean_gain(x_a: Array, q_a: Array, x_b: Array, q_b: Array, fit: Fit = "pchip") -> Array:
    """Return how much less x A needs than B, on average over the qualities that both reach, [...].

    In dB of SNR, or in log10 of channel uses, see :func:`percent`. Where quality does not grow, the
    lowest x that reaches it counts. Arguments as for :func:`mean_difference`; both as many curves.
    """
    q_a, q_b = np.atleast_2d(q_a), np.atleast_2d(q_b)
    new_a, new_b = _rises(q_a), _rises(q_b)
    gains = np.full(len(q_a), np.nan)
    for mask, rows in _patterns(np.hstack([new_a, new_b])):
        a, b = mask[: len(x_a)], mask[len(x_a) :]
        if min(a.sum(), b.sum()) > 1:
            found = mean_difference(q_a[rows][:, a], x_a[a], q_b[rows][:, b], x_b[b], fit)
            gains[rows] = -found
    return gains


def gain_at(x: float, quality: Array, x_a: Array, q_a: Array) -> Array:
    """Return how much less x than this A needs for this quality, [...]; NaN where it has no such.

    Args:
        x: SNR in dB, or log10 of channel uses, of the other scheme.
        quality: that it has there, [...].
        x_a, q_a: curve of A.
    """
    q_a, quality = np.atleast_2d(q_a), np.atleast_1d(quality)
    gains = np.full(len(q_a), np.nan)
    for mask, rows in _patterns(_rises(q_a)):
        if mask.sum() > 1:
            gains[rows] = x - _value(q_a[rows][:, mask], x_a[mask], quality[rows])
    return gains


def percent(gain: Array | float) -> Array | float:
    """Return the change of channel uses in percent for a mean gain in log10; negative: fewer."""
    return 100 * (10**-gain - 1)


def _rises(quality: Array) -> NDArray[np.bool_]:
    """Tell which points beat all before them; where quality falls or stays, it is not new."""
    best = np.maximum.accumulate(quality, axis=-1)
    first = np.full((*quality.shape[:-1], 1), -np.inf)
    return quality > np.concatenate([first, best[..., :-1]], axis=-1) + 1e-9


def _patterns(masks: NDArray[np.bool_]) -> list[tuple[NDArray[np.bool_], NDArray[np.intp]]]:
    """Return each distinct row of masks with the places of the rows that have it."""
    distinct, where = np.unique(masks, axis=0, return_inverse=True)
    return [(mask, np.flatnonzero(where.ravel() == k)) for k, mask in enumerate(distinct)]


def _area(x: Array, y: Array, low: Array, high: Array, fit: Fit) -> Array:
    """Return the integral of each curve through points between two ends."""
    if fit == "cubic":
        return _area_of_cubic(x, y, low, high)
    parts = _pieces(x, y)

    def integral(upto: Array) -> Array:
        t = np.clip(upto[..., None] - x[..., :-1], 0, np.diff(x))
        powers = (t, t**2 / 2, t**3 / 3, t**4 / 4)
        return sum((p * t for p, t in zip(parts, powers, strict=True)), np.zeros_like(t)).sum(-1)

    return integral(high) - integral(low)


def _area_of_cubic(x: Array, y: Array, low: Array, high: Array) -> Array:
    if x.shape[-1] < 4:
        raise ValueError(f"a cubic needs four points on each curve, got {x.shape[-1]}; use pchip")
    middle, half = x.mean(axis=-1, keepdims=True), np.ptp(x, axis=-1)[..., None] / 2
    powers = ((x - middle) / half)[..., None] ** np.arange(4)
    factors = (np.linalg.pinv(powers) @ y[..., None])[..., 0] * half

    def integral(upto: Array) -> Array:
        t = (upto[..., None] - middle) / half
        return (factors * t ** np.arange(1, 5) / np.arange(1, 5)).sum(axis=-1)

    return integral(high) - integral(low)


def _value(x: Array, y: Array, at: Array) -> Array:
    """Return each piecewise curve at a place of its own; NaN outside."""
    x, y = np.broadcast_arrays(x, y)
    piece = np.clip((at[:, None] >= x).sum(axis=1) - 1, 0, x.shape[1] - 2)[:, None]
    t = at - np.take_along_axis(x, piece, 1)[:, 0]
    parts = [np.take_along_axis(part, piece, 1)[:, 0] for part in _pieces(x, y)]
    value = parts[0] + t * (parts[1] + t * (parts[2] + t * parts[3]))
    return np.where((x[:, 0] <= at) & (at <= x[:, -1]), value, np.nan)


def _pieces(x: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    """Return the factors of 1, t, t^2 and t^3 on each piece, [..., P - 1]."""
    h = np.diff(x)
    d = np.diff(y) / h
    slopes = _slopes(h, d)
    left, right = slopes[..., :-1], slopes[..., 1:]
    return y[..., :-1], left, (3 * d - 2 * left - right) / h, (left + right - 2 * d) / h**2


def _slopes(h: Array, d: Array) -> Array:
    """Return slopes at the points that let no piece overshoot."""
    if d.shape[-1] == 1:
        return np.concatenate([d, d], axis=-1)
    h0, h1, d0, d1 = h[..., :-1], h[..., 1:], d[..., :-1], d[..., 1:]
    w0, w1 = 2 * h1 + h0, h1 + 2 * h0
    same = d0 * d1 > 0
    safe0, safe1 = np.where(same, d0, 1.0), np.where(same, d1, 1.0)
    inner = np.where(same, (w0 + w1) / (w0 / safe0 + w1 / safe1), 0.0)
    first = _end(h[..., 0], h[..., 1], d[..., 0], d[..., 1])
    last = _end(h[..., -1], h[..., -2], d[..., -1], d[..., -2])
    return np.concatenate([first[..., None], inner, last[..., None]], axis=-1)


def _end(h0: Array, h1: Array, d0: Array, d1: Array) -> Array:
    slope = ((2 * h0 + h1) * d0 - h0 * d1) / (h0 + h1)
    slope = np.where(slope * d0 <= 0, 0.0, slope)
    steep = (d0 * d1 <= 0) & (np.abs(slope) > 3 * np.abs(d0))
    return np.where(steep, 3 * d0, slope)
