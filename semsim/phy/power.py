"""The power constraint: unit mean power per item, never over the batch."""

from __future__ import annotations

import torch
from torch import Tensor


def unit_power(x: Tensor) -> Tensor:
    """Scale every item to unit mean power, which every link in a fair comparison must keep.

        x_hat = x / sqrt(mean |x|^2)

    Complex symbols [B, T, N] have their power summed over the T antennas of a channel use; reals
    [B, ...] get a mean square of 1. Items do not see each other. A zero item stays zero and has a
    finite gradient.

    Args:
        x: symbols [B, T, N] or [B, N], complex, or latents [B, ...], real.

    Returns:
        x scaled per item, same shape and dtype.
    """
    if x.dim() < 2 or (x.is_complex() and x.dim() > 3):
        raise ValueError(
            "unit_power takes complex symbols [B, T, N] or [B, N], or real latents [B, ...], got "
            f"{x.dtype} of shape {list(x.shape)}; add the batch axis with x.unsqueeze(0)"
        )
    parts = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    parts = parts.flatten(1)
    largest = parts.detach().abs().amax(dim=1, keepdim=True)  # squares of tiny values underflow
    parts = parts / torch.where(largest > 0, largest, 1)
    uses = x.shape[-1] if x.is_complex() else parts.shape[1]
    power = parts.square().sum(dim=1, keepdim=True) / uses
    parts = parts * torch.where(power > 0, power, 1).rsqrt()
    return torch.view_as_complex(parts.view(*x.shape, 2)) if x.is_complex() else parts.view_as(x)
