"""What is accumulated over items: means, their 95 % intervals, channel uses.

Items are the independent unit. Three rules, each from running sums alone, so that memory stays
bounded and an interrupted run goes on with the same digits:

1. Values that are all 0 or 1 (bler, accuracy): Clopper and Pearson's exact interval.
2. Else Student's t and, from ``FEW`` items on, t corrected for the skewness of the values
   (Hall); the wider at each end. Outages and errors in fading are skewed; symmetric values keep
   Student's width within 3 % at 24 items.
3. What has not been seen may still happen. Where the metric says what a failed item is worth
   (``worst``) and the values amount to fewer than ``EVENTS`` equal ones, (sum v)^2 / sum v^2, the
   interval allows that one item in four fails, or the largest share that n items overlook once in
   40 times if that is less. So it says so when five images saw no outage, or three items carry all
   bit errors, and a stop rule is not fooled by them.

An outage that was seen is covered. One that n >= EVENTS items overlook, as they do with probability
(1 - share)^n, is missed: values alone do not tell it from none, and allowing for it would widen
every interval without outage. The metric ``outage`` has the exact interval: 0 of n reach up to
about 3.7 / n. Take n so that this is small.

Sources: Hall, On the removal of skewness by transformation (1992); Kish, Survey sampling (1965).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEDGER = ("payload", "pilots", "feedback", "side_info")
FIVE_SIGMA = 2.867e-7  #: one tail of a normal distribution beyond five standard deviations
FEW = 10  #: fewer items say little of the spread and nothing of the skewness; rows say so
UNSEEN = 0.25  #: share of failures that an interval allows for though they were not seen
EVENTS = 13  #: so many items overlook them in fewer than one of 40 cases: 0.75^13 = 0.024


@dataclass
class Moments:
    """Running mean and variance of values that arrive in batches; plain numbers, so that they can be saved.

    Args:
        n: items seen.
        mean: their mean.
        m2: sum of squared distances from the mean.
        m3: sum of cubed distances from the mean.
        nonzero: items whose value is not 0.
        binary: whether all values were 0 or 1.
        lowest: smallest value.
        with_uses: sums of v u, v^2 u and v u^2 over items, for values v and channel uses u.
        kept: all values, for metrics that are no mean over items; None where nobody asks.
    """  # noqa: E501

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0
    m3: float = 0.0
    nonzero: int = 0
    binary: bool = True
    lowest: float = 0.0
    with_uses: tuple[float, float, float] = (0.0, 0.0, 0.0)
    kept: list[float] | None = None

    def add(self, values: Sequence[float] | np.ndarray) -> None:
        """Take in a batch of values; merges batches without loss of digits.

        Source: Pebay, Formulas for robust, one-pass parallel computation of covariances and
            arbitrary-order statistical moments (2008).
        """
        batch = np.asarray(values, dtype=np.float64)
        count, mean = len(batch), float(batch.mean())
        n, delta = self.n + count, mean - self.mean
        if self.kept is not None:
            self.kept += batch.tolist()
        self.lowest = float(batch.min()) if self.n == 0 else min(self.lowest, float(batch.min()))
        m2 = float(((batch - mean) ** 2).sum())
        self.m3 += float(((batch - mean) ** 3).sum())
        self.m3 += delta**3 * self.n * count * (self.n - count) / n**2
        self.m3 += 3 * delta * (self.n * m2 - count * self.m2) / n
        self.m2 += m2 + delta**2 * self.n * count / n
        self.mean += delta * count / n
        self.nonzero += int(np.count_nonzero(batch))
        self.binary = self.binary and bool(((batch == 0) | (batch == 1)).all())
        self.n = n
        if self.binary:
            self.mean = self.nonzero / n  # without rounding errors

    def pair(self, values: Array, uses: Array) -> None:
        """Note what a batch of values has to do with the channel uses of the same items."""
        v, u = (np.asarray(part, dtype=np.float64) for part in (values, uses))
        vu, vvu, vuu = self.with_uses
        more = float(v @ u), float((v * v) @ u), float(v @ (u * u))
        self.with_uses = vu + more[0], vvu + more[1], vuu + more[2]

    @property
    def standard_error(self) -> float:
        """Standard error of the mean; infinite for one item, which says nothing of the spread."""
        return math.sqrt(self.m2 / (self.n - 1) / self.n) if self.n > 1 else math.inf

    def five_sigma(self) -> float:
        """Return the distance from the mean that chance exceeds once in 3.5 million samples."""
        from scipy import special

        if self.n < 2:
            return math.inf
        return float(special.stdtrit(self.n - 1, 1 - FIVE_SIGMA)) * self.standard_error

    def interval(self, level: float = 0.95, *, worst: float | None = None) -> tuple[float, float]:
        """Return the two-sided interval of the mean at this level; NaN for a single item.

        Args:
            level: how often the interval holds the mean, at least.
            worst: what an item is worth that fails, as a metric declares it.
        """
        low, high = map(float, _interval(self, self.binary and self.n > 0, level, worst))
        return (max(low, 0.0) if self.lowest >= 0 else low), high


def interval_of_mean(
    values: Sequence[float] | Array, *, level: float = 0.95, worst: float | None = None
) -> tuple[Array, Array]:
    """Return the ends of the interval of the mean over the last axis, by the rules above.

    Args:
        values: independent items, [..., n]. Differences whose values may all be 0 or 1 are no
            shares: :func:`semsim.comparison.paired.mean_of` knows.
        level: how often the interval holds the mean, at least.
        worst: what an item is worth that fails, as a metric declares it.

    Returns:
        low and high, [...].
    """
    values = np.asarray(values, dtype=np.float64)
    n, mean = values.shape[-1], values.mean(axis=-1)
    away = values - mean[..., None]
    sums = _Sums(n, mean, (away**2).sum(axis=-1), (away**3).sum(axis=-1))
    binary = ((values == 0) | (values == 1)).all(axis=-1)
    low, high = _interval(sums, binary, level, worst)
    return np.where((values >= 0).all(axis=-1), np.maximum(low, 0.0), low), high


def interval_of_ratio(
    values: Moments, uses: Moments, *, level: float = 0.95, worst: float | None = None
) -> tuple[float, float]:
    """Return the interval of a mean over items per mean channel uses of an item.

    Items are paired with what they cost: rule 2 is of the linearisation v - r u (delta method). The
    ends reach at least as far as the exact interval of how many items have a value at all, each
    with the mean of these and at the mean cost. NaN where none has: what it would bring is unknown.

    Args:
        values: of the items, none below 0; with the channel uses by :meth:`Moments.pair`.
        uses: channel uses of the same items.
        level, worst: as in :meth:`Moments.interval`.
    """
    n, a, b, nonzero = values.n, values.mean, uses.mean, values.nonzero
    if not nonzero:
        return math.nan, math.nan
    ratio, (vu, vvu, vuu) = a / b, values.with_uses
    c_vu = vu - n * a * b
    c_vvu = vvu - 2 * a * vu + n * a * a * b - b * values.m2
    c_vuu = vuu - 2 * b * vu + n * a * b * b - a * uses.m2
    m2 = max(values.m2 - 2 * ratio * c_vu + ratio**2 * uses.m2, 0.0) / b**2
    m3 = values.m3 - 3 * ratio * c_vvu + 3 * ratio**2 * c_vuu - ratio**3 * uses.m3
    low, high = map(float, _interval(_Sums(n, ratio, m2, m3 / b**3), False, level, worst))
    shares = _clopper_pearson(np.asarray(nonzero, dtype=np.float64), n, (1 - level) / 2)
    fewest, most = (float(share) * n * ratio / nonzero for share in shares)
    return max(min(low, fewest), 0.0), max(high, most)


class _Sums(NamedTuple):
    """The sums of :class:`Moments` for many sets of items at once."""

    n: int
    mean: Array | float
    m2: Array | float
    m3: Array | float


def _interval(
    sums: _Sums | Moments, binary: Array | bool, level: float, worst: float | None
) -> tuple[Array, Array]:
    tail = (1 - level) / 2
    if sums.n < 2:
        low, high = np.full((2, *np.shape(sums.mean)), math.nan)
    else:
        low, high = _students(sums, tail)
        if worst is not None:
            unseen = _with_unseen(sums, tail, worst)
            low, high = np.minimum(low, unseen), np.maximum(high, unseen)
    if not np.any(binary):
        return low, high
    exact = _clopper_pearson(np.rint(sums.mean * np.float64(sums.n)), sums.n, tail)
    return np.where(binary, exact[0], low), np.where(binary, exact[1], high)


def _clopper_pearson(ones: Array, n: int, tail: float) -> tuple[Array, Array]:
    """Return the exact interval of a probability that showed ``ones`` times in ``n``."""
    from scipy import special

    ones = np.clip(ones, 0, n)  # values of other rows are no counts
    low = special.betaincinv(np.maximum(ones, 1), n - ones + 1, tail)
    high = special.betaincinv(ones + 1, np.maximum(n - ones, 1), 1 - tail)
    return np.where(ones > 0, low, 0.0), np.where(ones < n, high, 1.0)


def _students(sums: _Sums | Moments, tail: float) -> tuple[Array, Array]:
    """Return Student's interval, at each end the wider of the plain and the skewness-corrected."""
    from scipy import special

    n, mean = sums.n, np.asarray(sums.mean)
    t = float(special.stdtrit(n - 1, 1 - tail))
    error = np.sqrt(np.asarray(sums.m2) / (n - 1) / n)
    low, high = mean - t * error, mean + t * error
    if n < FEW:
        return low, high
    spread = np.where(np.asarray(sums.m2) > 0, sums.m2, 1.0)
    skewness = np.asarray(sums.m3) / spread * np.sqrt(n / spread)
    a = skewness * math.sqrt(n - 1) / (n - 2)  # of the sample, without bias, over the root of n
    straight = np.abs(a) < 1e-6
    a = np.where(straight, 1.0, a)

    def corrected(quantile: float) -> Array:
        bent = 3 / a * (np.cbrt(1 + a * (quantile - a / 6)) - 1)
        return mean - error * np.where(straight, quantile, bent)

    return np.minimum(low, corrected(t)), np.maximum(high, corrected(-t))


def _with_unseen(sums: _Sums | Moments, tail: float, worst: float) -> Array:
    """Return the mean if as many items failed as may have been overlooked; the mean where none."""
    n, mean = sums.n, np.asarray(sums.mean)
    squares = np.asarray(sums.m2) + n * mean**2
    events = (n * mean) ** 2 / np.where(squares > 0, squares, 1.0)
    share = min(UNSEEN, 1 - tail ** (1 / n))
    return np.where(events < EVENTS, mean + share * (worst - mean), mean)


def _first(state: dict[str, Any]) -> list[float] | None:
    """Return what was kept of the items that the state counts."""
    kept = state.get("kept")
    return None if kept is None else list(kept[: state["n"]])


@dataclass
class Tally:
    """What has been accumulated at one SNR.

    Args:
        values: of each metric.
        power: mean power of an item.
        spent: channel uses of an item.
        uses: the same by name, summed over items.
        notes: of the link.
        remarks: of the link, words by column.
        source_values: of all items.
        batches: how many were added.
        seconds: that they took.
    """

    values: list[Moments]
    power: Moments = field(default_factory=Moments)
    spent: Moments = field(default_factory=Moments)
    uses: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LEDGER, 0.0))
    notes: dict[str, Moments] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    source_values: float = 0.0
    batches: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers; JSON keeps every bit of them."""
        return {
            **vars(self),
            "uses": dict(self.uses),
            "remarks": dict(self.remarks),
            "values": [dict(vars(m)) for m in self.values],
            "power": dict(vars(self.power)),
            "spent": dict(vars(self.spent)),
            "notes": {name: dict(vars(m)) for name, m in self.notes.items()},
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Tally:
        """Undo :meth:`as_dict`."""
        return cls(
            **{
                **state,
                # what is kept may have grown since: the state of a run holds the list itself
                "values": [
                    Moments(**{**m, "kept": _first(m), "with_uses": tuple(m["with_uses"])})
                    for m in state["values"]
                ],
                "power": Moments(**state["power"]),
                "spent": Moments(**state["spent"]),
                "notes": {name: Moments(**m) for name, m in state["notes"].items()},
            }
        )


def with_reach(value: float, low: float, high: float, *, signed: bool = False) -> str:
    """Return a value and its interval: "32.1±0.4", or "0.99 -0.06/+0.01" where its sides differ.

    Sides differ where they do to the two digits shown. No interval, no reach.

    Args:
        value, low, high: the number and the ends of its interval.
        signed: whether a plus stands before a positive value.
    """
    number = f"{value:+.4g}" if signed else f"{value:.4g}"
    down, up = value - low, high - value
    if down != down or up != up:
        return number
    below, above = (f"{max(side, 0):.2g}" for side in (down, up))
    return f"{number}±{below}" if below == above else f"{number} -{below}/+{above}"


def interval_note(of: str = "") -> str:
    """Return how to read numbers by :func:`with_reach`; ``of`` is what intervals are over."""
    over = f" over {of}" if of else ""
    return f"± or -/+ is how far the 95 % interval{over} reaches to each side."
