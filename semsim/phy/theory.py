"""Closed forms that simulations are held against: error rates, capacities, allocations."""

from __future__ import annotations

import torch
from torch import Tensor


def water_filling(gains: Tensor, power: float = 1.0) -> Tensor:
    """Share power over parallel channels so that their capacity is largest.

        p_i = max(0, mu - 1 / g_i),  sum p_i = power

    Args:
        gains: SNR of each channel at unit power (sigma_i^2 / n0), [..., S], linear.
        power: what is to be shared, linear.

    Returns:
        p, [..., S]; zero where a channel is too weak.

    Source: Cover, Thomas, Elements of Information Theory (2006), parallel Gaussian channels.
    """
    floor, order = (1 / gains.clamp_min(1e-30)).sort(dim=-1)
    floor = floor - floor[..., :1]  # only differences matter; this keeps their digits
    count = torch.arange(1, gains.shape[-1] + 1, device=gains.device, dtype=gains.dtype)
    level = (power + floor.cumsum(dim=-1)) / count  # mu if the best 1, 2, ... channels are used
    used = (level > floor).sum(dim=-1, keepdim=True)
    share = torch.where(count <= used, level.gather(-1, used - 1) - floor, 0)
    return torch.zeros_like(gains).scatter(-1, order, share)
