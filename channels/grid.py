"""Where channel uses stand on an OFDM grid, and what is known of it in the long run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from channels.doppler import Taps

SLOT = 14  #: OFDM symbols of a slot, with 5G's normal cyclic prefix


@dataclass(frozen=True, eq=False)
class ResourceGrid:
    """An OFDM grid that is filled subcarrier by subcarrier, then symbol by symbol.

    Args:
        subcarriers: F.
        subcarrier_spacing_hz: their distance.
        symbol_rate_hz: OFDM symbols per second.
        taps: the channel's long-term statistics, which a receiver knows.
    """

    subcarriers: int
    subcarrier_spacing_hz: float
    symbol_rate_hz: float
    taps: Taps

    def correlation(self, subcarriers: Tensor, symbols: Tensor) -> Tensor:
        """Return E[h h*] of elements so far apart, [subcarriers, symbols], complex128."""
        return self.taps.correlation(
            subcarriers * self.subcarrier_spacing_hz, symbols / self.symbol_rate_hz
        )

    @cached_property
    def flat_subcarriers(self) -> int:
        """Number of neighbours that stay correlated by 0.9, the largest that divides F."""
        apart = torch.arange(self.subcarriers)
        alike = self.correlation(apart, torch.zeros(1))[:, 0].abs() >= 0.9
        reach = int(alike.long().cumprod(0).sum())
        return max(n for n in range(1, reach + 1) if self.subcarriers % n == 0)

    def blocks(self, uses: int) -> tuple[Tensor, int]:
        """Return the block of each use, [uses], and how many there are.

        A block spans ``flat_subcarriers`` and a slot, or all symbols where nothing moves.
        """
        use = torch.arange(uses)
        across = self.subcarriers // self.flat_subcarriers
        block = use % self.subcarriers // self.flat_subcarriers
        if self.taps.moving:
            block = block + across * (use // (self.subcarriers * SLOT))
        _, block = block.unique(return_inverse=True)
        return block, int(block.max()) + 1
