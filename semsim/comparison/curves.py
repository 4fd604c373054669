"""Two curves that the same items drew, over SNR or channel uses, and what lies between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semsim.comparison.bjontegaard import Array, Fit, gain_at, mean_difference, mean_gain, percent
from semsim.comparison.differences import SAME, paired_items
from semsim.comparison.paired import Estimate, bootstrap, difference, mean_of

if TYPE_CHECKING:
    from pandas import DataFrame, Series

RATES = ("ber", "bler")  #: quality is minus their logarithm


@dataclass
class Curves:
    """Two curves over SNR whose points were met by the same items."""

    rows: list[dict[str, Any]]
    x: Array
    items: tuple[Array, Array]
    combine: Callable[[float], float] | None
    metric: str
    values: tuple[list[float], list[float]]
    differences: list[Estimate]

    @classmethod
    def read(cls, folders: tuple[Path, Path], matched: DataFrame, metric: str) -> Curves:
        """Read the items of all points; refuse what is not fair."""
        rows: list[dict[str, Any]] = matched.to_dict("records")  # type: ignore[assignment]
        for row in rows:
            check_fair(row)
        points = [
            (folder, row[f"uid_{side}"])
            for folder, side in zip(folders, "ab", strict=True)
            for row in rows
        ]
        tables, combines = paired_items(points, [metric])
        values = np.array([table[metric].to_numpy() for table in tables])
        a, b, combine = values[: len(rows)], values[len(rows) :], combines[metric]
        means = [[float(m) if combine is None else combine(float(m)) for m in s.mean(axis=1)]
                 for s in (a, b)]  # fmt: skip
        differences = [difference(one, other, combine) for one, other in zip(a, b, strict=True)]
        x = np.array([row["snr_db"] for row in rows])
        return cls(rows, x, (a, b), combine, metric, (means[0], means[1]), differences)

    def snr_deltas(self, better: str, fit: Fit) -> list[Estimate]:
        """Return mean difference, mean SNR gain, and the gain at the quality of each point of B.

        A point without noise, at an infinite SNR, lies on no curve.
        """
        none, on = Estimate(np.nan, np.nan, np.nan, 0), np.isfinite(self.x)
        x, sign = self.x[on], -1.0 if better == "lower" else 1.0
        if len(x) < 2:
            return [none, none, *[none] * len(self.x)]
        q = quality_of(self.metric, better, self.combine)

        def statistic(a: Array, b: Array) -> Array:
            qa, qb = q(a), q(b)
            at = [gain_at(x[k], qb[:, k], x, qa) for k in range(len(x))]
            over = [sign * mean_difference(x, qa, x, qb, fit), mean_gain(x, qa, x, qb, fit)]
            return np.stack([*over, *at], axis=1)

        over_range = bootstrap(self.items[0][on], self.items[1][on], statistic)
        at = iter(over_range[2:])
        return [*over_range[:2], *(next(at) if there else none for there in on)]


def check_fair(row: dict[str, Any]) -> None:
    """Refuse two points of which one may use more of the channel than the other."""
    for column, word in (("cbr", "channel uses per source value"), ("power", "power")):
        first, second = row[f"{column}_a"], row[f"{column}_b"]
        if abs(first - second) > SAME * max(abs(first), abs(second)):
            raise ValueError(
                f"not comparable at {row['snr_db']:g} dB: {word} {first:.4g} against {second:.4g}"
                + ("; sweep transmitter.cbr for deltas in channel uses" if column == "cbr" else "")
            )


def same_uses(matched: DataFrame) -> Series[bool]:
    """Tell which points use as much of the channel on both sides, by :func:`check_fair`."""
    a, b = matched["cbr_a"], matched["cbr_b"]
    return (a - b).abs() <= SAME * np.maximum(a.abs(), b.abs())


def pooled(estimates: list[Estimate]) -> Estimate:
    """Return the estimate, or of several trainings the mean with its interval over trainings."""
    if len(estimates) == 1:
        return estimates[0]
    return mean_of(np.array([e.value for e in estimates]))


def quality_of(
    metric: str, better: str, combine: Callable[[float], float] | None
) -> Callable[[Array], Array]:
    """Return what grows as a metric gets better, of means over items."""

    def quality(means: Array) -> Array:
        if metric in RATES:
            return -np.log10(np.where(means > 0, means, np.nan))
        values = means if combine is None else np.vectorize(combine)(means)
        return -values if better == "lower" else values

    return quality


def uses_deltas(
    values: Array, split: int, x: tuple[Array, Array], q: Callable[[Array], Array], fit: Fit
) -> list[Estimate]:
    """Return mean difference in quality, and change of channel uses in percent at equal quality.

    Args:
        values: per point and item; those of A first, ``split`` of them, then those of B.
        split: points of A.
        x: log10 of channel uses of both.
        q: quality of means, see :func:`quality_of`.
        fit: how curves go through their points.
    """

    def statistic(a: Array, b: Array) -> Array:
        qa, qb = q(a[:, :split]), q(b[:, split:])
        gain = mean_gain(x[0], qa, x[1], qb, fit)
        return np.stack([mean_difference(x[0], qa, x[1], qb, fit), percent(gain)], axis=1)

    return bootstrap(values, values, statistic)
