"""The power constraint: unit mean power per item, never over the batch.

Who promises what, and who sees to it:

- A transmitter: mean |symbol|^2 is 1 over each item, or less. One that sends points of a
  constellation of unit power (QAM) declares ``constellation = True`` and promises that in
  expectation over its points; an item then strays by chance.
- The link: whatever the front end's precoder does (water-filling, rank, RZF), an item goes on air
  with the power of its symbols, summed over antennas. So power moves between the streams and uses
  of an item, never from one item to another, and a codec gains none by loading the strong stream.
- The evaluator: each item's power on air is at most 1 within ``TOLERANCE``, beside five standard
  errors where a constellation is declared; the mean over all items is held to the same. A link
  that breaks it is refused at its first batch, already by ``semsim check``.
- Pilots have the power of symbols and are charged as channel uses, as is side information, whose
  bits the transmitter declares (see :class:`semsim.types.WithSideInfo`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TOLERANCE = 0.01  #: of an item's power; half precision strays by less
QAM_SPREAD = 0.4  #: variance of |x|^2 of square QAM, at most: 7/5 - 1 for infinitely many points


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


def most_power(uses: int, *, constellation: bool = False) -> float:
    """Return the largest mean power that an item of so many channel uses may have on air.

    Args:
        uses: channel uses N.
        constellation: whether the transmitter sends points of a constellation, which have unit
            power in expectation alone.
    """
    strays = 5 * math.sqrt(QAM_SPREAD / max(uses, 1)) if constellation else 0.0
    return 1 + TOLERANCE + strays
