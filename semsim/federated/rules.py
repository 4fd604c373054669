"""How the server makes one set of weights of many: means, and rules that bear with false ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]


@dataclass
class Mean:
    """The mean of weights, a sum that grows as they come: memory of one, however many there are.

    Sums are of 64 bits, so that equal weights have themselves as their mean.
    """

    total: dict[str, Tensor] = field(default_factory=dict)
    weight: float = 0.0
    count: int = 0

    def add(self, weights: Weights, weight: float) -> None:
        """Take in the weights of one client, which counts for so much."""
        for name, value in weights.items():
            part = value.double() * weight
            self.total[name] = self.total[name] + part if name in self.total else part
        self.weight += weight
        self.count += 1

    def result(self) -> dict[str, Tensor]:
        """Return the mean, in 64 bits."""
        return {name: value / self.weight for name, value in self.total.items()}


def median(stack: Sequence[Weights]) -> dict[str, Tensor]:
    """Return the median of each number; between the middle two where their count is even."""
    low, high = (len(stack) - 1) // 2, len(stack) // 2
    ordered = {n: _stacked(stack, n).sort(dim=0).values for n in stack[0]}
    return {n: (values[low] + values[high]) / 2 for n, values in ordered.items()}


def trimmed_mean(stack: Sequence[Weights], trim: float) -> dict[str, Tensor]:
    """Return the mean of each number without a share of the largest and of the smallest.

    At least one is left out at each end where three or more are there, and never the last.

    Source: Yin, Chen, Kannan, Bartlett, Byzantine-robust distributed learning, ICML 2018.
    """
    out = trimmed(len(stack), trim)
    result = {}
    for name in stack[0]:
        ordered = _stacked(stack, name).sort(dim=0).values
        result[name] = ordered[out : len(stack) - out].mean(dim=0)
    return result


def trimmed(count: int, trim: float) -> int:
    """Return how many of so many values a trimmed mean leaves out at each end."""
    return min(max(1, int(trim * count)), (count - 1) // 2) if trim else 0


def krum(stack: Sequence[Weights], byzantine: int) -> int:
    """Return which weights lie closest to their nearest others.

    The sum of squared distances to the n - byzantine - 2 nearest is smallest; up to ``byzantine``
    false ones cannot win where n is at least 2 byzantine + 3.

    Source: Blanchard and others, Machine learning with adversaries, NeurIPS 2017.
    """
    count = len(stack)
    near = max(1, count - byzantine - 2)
    distances = torch.zeros(count, count, dtype=torch.float64)
    for name in stack[0]:
        flat = _stacked(stack, name).reshape(count, -1)
        distances += torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").square()
    ordered = distances.sort(dim=1).values[:, 1 : 1 + near]  # without the distance to itself
    return int(ordered.sum(dim=1).argmin())


def _stacked(stack: Sequence[Weights], name: str) -> Tensor:
    return torch.stack([weights[name].double() for weights in stack])
