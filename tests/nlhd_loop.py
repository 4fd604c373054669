"""NLHD written as its text reads, a loop for each "for each": slow, and beyond doubt."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def haar(values: Array) -> Array:
    """Transform the last axis by lifting: sums and differences, recursively on the sums."""
    parts = []
    while values.shape[-1] > 1:
        even, odd = values[..., 0::2], values[..., 1::2]
        parts.insert(0, (even - odd) / math.sqrt(2))
        values = (even + odd) / math.sqrt(2)
    return np.concatenate([values, *parts], axis=-1)


def inverse_haar(coefficients: Array) -> Array:
    """Undo :func:`haar`."""
    values = coefficients[..., :1]
    while values.shape[-1] < coefficients.shape[-1]:
        n = values.shape[-1]
        differences = coefficients[..., n : 2 * n]
        pair = np.stack([values + differences, values - differences], axis=-1) / math.sqrt(2)
        values = pair.reshape(*values.shape[:-1], 2 * n)
    return values


def starts(side: int, block: int, step: int) -> list[int]:
    last = side - block
    return [*range(0, last, step), last]


def similar_blocks(levels: Array, y: int, x: int, n: int, half: int, m: int) -> list:
    """Return the corners of the m nearest blocks, nearer places first where blocks are equal."""
    found = []
    for dy in range(-half, half + 1):
        for dx in range(-half, half + 1):
            v, u = y + dy, x + dx
            if 0 <= v <= levels.shape[0] - n and 0 <= u <= levels.shape[1] - n:
                other = levels[v : v + n, u : u + n]
                distance = ((levels[y : y + n, x : x + n] - other) ** 2).sum()
                found.append((distance, dy * dy + dx * dx, dy, dx, v, u))
    return [(v, u) for *_, v, u in sorted(found)[:m]]


def similar_rows(rows: Array, i: int, q: int) -> list[int]:
    """Return row i and the q - 1 rows nearest to it, the first of equals first."""
    distance = ((rows - rows[i]) ** 2).sum(axis=1)
    distance[i] = -1
    return list(np.argsort(distance, kind="stable")[:q])


def nlhd(
    channel: Array, guide: Array, *, n: int = 8, window: int = 39, m: int = 16, q: int = 4,
    step: int = 4, limit: float = 0.0,
) -> tuple[Array, Array]:  # fmt: skip
    """Return illumination and detail of one channel [H, W], with groups found in the guide.

    Coefficients below ``limit`` are dropped.
    """
    levels = np.round(guide * 255)
    light, detail, overlaps = (np.zeros_like(channel) for _ in range(3))
    for y in starts(channel.shape[0], n, step):
        for x in starts(channel.shape[1], n, step):
            corners = similar_blocks(levels, y, x, n, window // 2, m)
            matrix = np.stack([channel[v : v + n, u : u + n].ravel() for v, u in corners], axis=1)
            judged = np.stack([levels[v : v + n, u : u + n].ravel() for v, u in corners], axis=1)
            low, high = rebuilt(matrix, judged, q, limit)
            for column, (v, u) in enumerate(corners):
                light[v : v + n, u : u + n] += low[:, column].reshape(n, n)
                detail[v : v + n, u : u + n] += high[:, column].reshape(n, n)
                overlaps[v : v + n, u : u + n] += 1
    return light / overlaps, detail / overlaps


def rebuilt(matrix: Array, judged: Array, q: int, limit: float) -> tuple[Array, Array]:
    """Return what C00 and what all other coefficients rebuild of one reference's matrix."""
    low, high, times = np.zeros_like(matrix), np.zeros_like(matrix), np.zeros(len(matrix))
    for i in range(len(matrix)):
        rows = similar_rows(judged, i, q)
        coefficients = haar(haar(matrix[rows]).T).T
        lowest = np.zeros_like(coefficients)
        lowest[0, 0] = coefficients[0, 0]
        others = np.where(np.abs(coefficients) >= limit, coefficients, 0)
        others[0, 0] = 0
        low[rows] += inverse_haar(inverse_haar(lowest.T).T)
        high[rows] += inverse_haar(inverse_haar(others.T).T)
        times[rows] += 1
    return low / times[:, None], high / times[:, None]
