"""Additive white Gaussian noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from channels.base import ChannelState, check_symbols
from channels.checks import check_draw, check_generator, check_noise
from channels.streams import normal_by_use


def add_noise(y: Tensor, n0: Tensor | None, generator: torch.Generator) -> Tensor:
    """Return y + n with n ~ CN(0, n0), n0/2 per real part; y itself where n0 is None.

    Use n of item b meets the same noise whatever comes after it, see :mod:`channels.streams`.

    Args:
        y: [B, R, N], complex.
        n0: noise power per complex symbol of each item, [B], linear.
        generator: on the device of y.
    """
    if n0 is None:
        return y
    check_noise(y, n0)
    check_generator(y, generator)
    noise = normal_by_use(tuple(y.shape[:2]), y.shape[2], generator, y.dtype)
    return y + n0.sqrt()[:, None, None] * noise


class AWGN(nn.Module):
    """The channel every other one is compared with: y = x + n, n ~ CN(0, n0).

    One antenna at each end; h is 1.
    """

    num_tx = 1
    num_rx = 1

    def __init__(self) -> None:
        super().__init__()

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        """Return h = 1, [B, 1, 1, 1], constant over all uses; nothing is drawn."""
        check_draw(batch, uses)
        h = torch.ones(batch, 1, 1, 1, dtype=torch.complex64, device=generator.device)
        return ChannelState(h, coherence=uses)

    def forward(
        self, x: Tensor, state: ChannelState, n0: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Send x [B, 1, N], receive y [B, 1, N]."""
        check_symbols(x, self.num_tx)
        return add_noise(x, n0, generator)
