"""What a base station knows of users of unequal power, each of whom sends its own pilots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from channels.base import CSI, ChannelState
from channels.csi import CSISource, Overhead


class UserCSI(nn.Module):
    """Ask a CSI source, made for one sender of power 1, about U users of power p_u each.

        y / sqrt(P) = sum over u of h'_u x_u / sqrt(U) + noise of n0 / P,
        P = sum of p_u,  h'_u = h_u sqrt(p_u U / P)

    The right side is what the source expects: U antennas that share a power of 1, and pilots from
    each as strong as its symbols. So a weak user's channel is known less well than a strong one's.
    A prior of E|h'|^2 = 1, as the LMMSE estimators have, is that of users of equal power.

    Args:
        source: such as pilots.
        power_db: of each user, in dB.
    """

    scale: Tensor

    def __init__(self, source: CSISource, power_db: Sequence[float]) -> None:
        super().__init__()
        powers = [10 ** (p / 10) for p in power_db]
        self.source, self.total = source, sum(powers)
        scale = torch.tensor([(p * len(powers) / self.total) ** 0.5 for p in powers])
        self.register_buffer("scale", scale[:, None], persistent=False)

    def forward(
        self,
        state: ChannelState,
        n0: Tensor,
        generator: torch.Generator,
        received: CSI | None = None,
    ) -> CSI:
        """Return h_u [B, R, U, 1 or N] and the noise left beside y; n0 [B], linear."""
        total, colour = self.total, state.covariance
        seen = replace(
            state,
            h=state.h * self.scale,
            interference=state.interference / total,
            covariance=None if colour is None else colour / total,
        )
        csi = self.source(seen, n0 / total, generator, received)
        return replace(
            csi,
            h=None if csi.h is None else csi.h / self.scale,
            n0=csi.n0 * total,
            covariance=None if csi.covariance is None else csi.covariance * total,
        )

    def overhead(self, state: ChannelState, uses: int, num_tx: int) -> Overhead:
        """Return what the source costs; users send their pilots in the same channel uses."""
        return self.source.overhead(state, uses, num_tx)
