"""What one client can change, and what that says of it: differential privacy of clients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ORDERS = [1 + x / 10 for x in range(1, 100)] + list(range(11, 512))  #: of Renyi divergence


def clipped(after: dict[str, Tensor], before: dict[str, Tensor], norm: float) -> dict[str, Tensor]:
    """Return weights whose change from ``before`` has at most this norm, over all tensors."""
    moved = {n: v - before[n] for n, v in after.items() if v.is_floating_point()}
    length = math.sqrt(sum(float(v.double().square().sum()) for v in moved.values()))
    if not math.isfinite(length) or length <= norm:
        return after
    return after | {n: before[n] + v * (norm / length) for n, v in moved.items()}


def epsilon(noise_multiplier: float, rounds: int, delta: float) -> float:
    """Return the epsilon of so many rounds of Gaussian noise; infinite without noise.

    An upper bound: that a round leaves clients out at random is not counted in its favour.

    Source: Mironov, Renyi differential privacy, CSF 2017, propositions 3 and 7.
    """
    if not noise_multiplier or not rounds:
        return 0.0 if not rounds else math.inf
    slope = rounds / (2 * noise_multiplier**2)
    return min(a * slope + math.log(1 / delta) / (a - 1) for a in ORDERS)


def noise_like(value: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Return normal noise of a standard deviation, float64, in the shape of a tensor."""
    return std * torch.randn(value.shape, generator=generator, dtype=torch.float64)
