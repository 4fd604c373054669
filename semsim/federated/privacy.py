"""What one client can change, and what that says of it: differential privacy of clients.

Neighbours are two federations of which one has zero in place of a client's change, while all
others, and how many arrived, stay ("zero-out" adjacency). The sum of changes then moves by
``clip_norm`` at most. Where neighbours differ by one change in place of another ("replace-one") it
moves by twice as much, as if ``noise_multiplier`` were half.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

ORDERS = [1 + x / 10 for x in range(1, 100)] + list(range(11, 512))  #: of Renyi divergence
ADJACENCY = "zero-out"  #: what epsilon is of


def clipped(after: dict[str, Tensor], before: dict[str, Tensor], norm: float) -> dict[str, Tensor]:
    """Return weights whose change from ``before`` has at most this norm, over all tensors."""
    moved = {n: v - before[n] for n, v in after.items() if v.is_floating_point()}
    length = math.sqrt(sum(float(v.double().square().sum()) for v in moved.values()))
    if not math.isfinite(length) or length <= norm:
        return after
    return after | {n: before[n] + v * (norm / length) for n, v in moved.items()}


def epsilon(noise_multiplier: float, rounds: int, delta: float) -> float:
    """Return the epsilon of so many rounds of Gaussian noise; infinite without noise.

    An upper bound for zero-out adjacency, see above: that a round leaves clients out at random is
    not counted in its favour. For replace-one adjacency give half of ``noise_multiplier``. It holds
    against those who do not know the key of :func:`noise_like`.

    Source: Mironov, Renyi differential privacy, CSF 2017, propositions 3 and 7.
    """
    if not noise_multiplier or not rounds:
        return 0.0 if not rounds else math.inf
    slope = rounds / (2 * noise_multiplier**2)
    return min(a * slope + math.log(1 / delta) / (a - 1) for a in ORDERS)


def noise_like(value: Tensor, std: float, key: str) -> Tensor:
    """Return normal noise of a standard deviation, float64, in the shape of a tensor.

    The same key gives the same noise. It comes from SHAKE-256, so that nobody who sees some of it,
    as where no client changed a weight, learns the rest or the key.

    Args:
        value: its shape is taken.
        std: standard deviation.
        key: what decides the noise; one for each use.
    """
    drawn = hashlib.shake_256(key.encode()).digest(8 * value.numel())
    whole = torch.frombuffer(bytearray(drawn), dtype=torch.int64) if drawn else torch.empty(0)
    uniform = ((whole.long() & (2**52 - 1)).double() + 0.5) / 2**52  # never 0 nor 1
    return std * torch.special.ndtri(uniform).view(value.shape)
