"""What is accumulated over items: means, their 95 % intervals, channel uses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LEDGER = ("payload", "pilots", "feedback", "side_info")
FIVE_SIGMA = 2.867e-7  #: one tail of a normal distribution beyond five standard deviations


@dataclass
class Moments:
    """Running mean and variance of values that arrive in batches; plain numbers, so that they can be saved.

    Args:
        n: items seen.
        mean: their mean.
        m2: sum of squared distances from the mean.
        nonzero: items whose value is not 0.
        binary: whether all values were 0 or 1.
        lowest: smallest value.
    """  # noqa: E501

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0
    nonzero: int = 0
    binary: bool = True
    lowest: float = 0.0

    def add(self, values: Sequence[float] | np.ndarray) -> None:
        """Take in a batch of values; merges batches without loss of digits.

        Source: Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm (1979).
        """
        batch = np.asarray(values, dtype=np.float64)
        count, mean = len(batch), float(batch.mean())
        n, delta = self.n + count, mean - self.mean
        self.lowest = float(batch.min()) if self.n == 0 else min(self.lowest, float(batch.min()))
        self.m2 += float(((batch - mean) ** 2).sum()) + delta**2 * self.n * count / n
        self.mean += delta * count / n
        self.nonzero += int(np.count_nonzero(batch))
        self.binary = self.binary and bool(((batch == 0) | (batch == 1)).all())
        self.n = n
        if self.binary:
            self.mean = self.nonzero / n  # without rounding errors

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

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the two-sided interval of the mean at this level.

        Clopper-Pearson where all values are 0 or 1 (so also where no error was seen at all), else
        Student's t; NaN for a single item.
        """
        from scipy import special

        tail = (1 - level) / 2
        if self.binary and self.n:
            ones, zeros = self.nonzero, self.n - self.nonzero
            low = float(special.betaincinv(ones, zeros + 1, tail)) if ones else 0.0
            high = float(special.betaincinv(ones + 1, zeros, 1 - tail)) if zeros else 1.0
            return low, high
        if self.n < 2:
            return math.nan, math.nan
        half = float(special.stdtrit(self.n - 1, 1 - tail)) * self.standard_error
        low = self.mean - half
        return (max(low, 0.0) if self.lowest >= 0 else low), self.mean + half


@dataclass
class Tally:
    """What has been accumulated at one SNR."""

    values: list[Moments]
    power: Moments = field(default_factory=Moments)
    uses: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LEDGER, 0.0))
    notes: dict[str, Moments] = field(default_factory=dict)
    source_values: float = 0.0
    batches: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers; JSON keeps every bit of them."""
        return {
            **vars(self),
            "uses": dict(self.uses),
            "values": [dict(vars(m)) for m in self.values],
            "power": dict(vars(self.power)),
            "notes": {name: dict(vars(m)) for name, m in self.notes.items()},
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Tally:
        """Undo :meth:`as_dict`."""
        return cls(
            **{
                **state,
                "values": [Moments(**m) for m in state["values"]],
                "power": Moments(**state["power"]),
                "notes": {name: Moments(**m) for name, m in state["notes"].items()},
            }
        )
