"""What each end of a link knows of the channel: all, an estimate from pilots, feedback, nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from channels.base import CSI, ChannelState


@dataclass(frozen=True)
class Overhead:
    """What knowing the channel costs one item.

    Args:
        pilot_uses: channel uses spent on pilots.
        feedback_bits: bits sent back to the transmitter.
    """

    pilot_uses: float = 0.0
    feedback_bits: float = 0.0


class PerfectCSI(nn.Module):
    """Know the channel exactly, at no cost: the upper bound."""

    def forward(
        self,
        state: ChannelState,
        n0: Tensor,
        generator: torch.Generator,
        received: CSI | None = None,
    ) -> CSI:
        """Return the true gain and the true noise power, interference included; n0 [B], linear."""
        return CSI(state.h, n0 + state.interference)

    def overhead(self, state: ChannelState, uses: int, num_tx: int) -> Overhead:
        """Return no cost: nothing is measured or sent."""
        return Overhead()


class NoCSI(nn.Module):
    """Know the long-term SNR and nothing of the realisation."""

    def forward(
        self,
        state: ChannelState,
        n0: Tensor,
        generator: torch.Generator,
        received: CSI | None = None,
    ) -> CSI:
        """Return no gain and the mean noise power, interference included; n0 [B], linear."""
        return CSI(None, n0 + state.interference)

    def overhead(self, state: ChannelState, uses: int, num_tx: int) -> Overhead:
        """Return no cost: nothing is measured or sent."""
        return Overhead()
