"""Clear sight for some items and fading for others: what a codec for both is trained on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from channels.awgn import add_noise
from channels.base import ChannelState, check_symbols
from channels.checks import check_draw, check_range
from channels.streams import forks, gains_by_use

LEAST_GAIN = 0.1  # |h| of a faded item: training should see no noise without bound


class Mixed(nn.Module):
    """AWGN for a share of the items, block Rayleigh fading for the rest, on one antenna.

    Part of the faded items has two gains that take turns from use to use: what two streams of
    unequal gain look like behind a linear front end. No gain is below 0.1, -20 dB.

    Args:
        awgn: share of the items that do not fade.
        two_gains: share of the items with two gains.
    """

    num_tx = 1
    num_rx = 1

    def __init__(self, awgn: float = 0.65, two_gains: float = 0.18) -> None:
        super().__init__()
        check_range("awgn", awgn, low=0.0, high=1.0, hint="all items are 1")
        check_range("two_gains", two_gains, low=0.0, high=1.0, hint="none is 0")
        if awgn + two_gains > 1:
            raise ValueError(
                f"awgn and two_gains are shares of the same items, got {awgn} and {two_gains}; "
                "let them sum to at most 1"
            )
        self.awgn, self.two_gains = awgn, two_gains

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        """Draw h [B, 1, 1, N]."""
        check_draw(batch, uses)
        fading, kinds = forks(generator, "fading", "kinds")
        gain = gains_by_use((batch, 1, 1), 2, fading)
        gain = gain * (LEAST_GAIN / gain.abs().clamp_min(1e-12)).clamp_min(1)
        kind = torch.rand(batch, generator=kinds, device=gain.device)
        gain[kind < self.awgn] = 1
        gain[kind < 1 - self.two_gains, ..., 1] = gain[kind < 1 - self.two_gains, ..., 0]
        h = gain[..., torch.arange(uses, device=gain.device) % 2]
        return ChannelState(h, coherence=uses if self.two_gains == 0 else 1)

    def forward(
        self, x: Tensor, state: ChannelState, n0: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Send x [B, 1, N], receive y = h x + n [B, 1, N]."""
        check_symbols(x, self.num_tx)
        return add_noise(state.h[:, 0] * x, n0, generator)

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return f"awgn={self.awgn}, two_gains={self.two_gains}"
