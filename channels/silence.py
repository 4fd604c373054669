"""Measuring interference: listen while the own transmitter is silent."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from channels.base import CSI, ChannelState, complex_normal
from channels.checks import check_count
from channels.csi import CSISource, Observer, Overhead, PerfectCSI
from channels.streams import forks


class SilenceCSI(Observer):
    """Estimate the covariance of noise and interference from channel uses in which nothing is sent.

        C = sum over uses of v v^H / uses, with no eigenvalue below n0

    v is what arrives in a silent use. The floor is the maximum-likelihood estimate for a receiver
    that knows its own noise; it makes one use enough. What another source leaves uncertain of h
    goes into C and n0 too. Where interference moves within an item, its mean is measured. The
    silent uses are charged like pilots.

    Args:
        uses: silent channel uses per item.
        gain: what the receiver knows of h; perfect where left out.

    Source: Steiner, Gerlach, Fast converging adaptive processor for a structured covariance matrix
        (2000).
    """

    def __init__(self, uses: int = 16, *, gain: CSISource | None = None) -> None:
        super().__init__()
        check_count("uses", uses, "the covariance of 2 antennas takes 8 or more")
        self.uses = uses
        self.gain = gain if gain is not None else PerfectCSI()

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return f"uses={self.uses}"

    def believe(self, state: ChannelState, n0: Tensor, generator: torch.Generator) -> CSI:
        """Return h as the other source knows it, C [B, R, R, 1] and its mean power; n0 [B]."""
        (silence,) = forks(generator, "silence")
        known = self.gain(state, n0, generator)
        heard = self._listen(state, n0, silence)
        power, axes = torch.linalg.eigh(heard @ heard.mH / self.uses)
        believed = known.n0 if known.n0.dim() == 1 else known.n0.mean(dim=(1, 2))
        uncertain = (believed - n0 - state.interference)[:, None]
        power = torch.maximum(power, n0[:, None].to(power.dtype)) + uncertain
        covariance = (axes * power[:, None]) @ axes.mH
        noise = power.mean(dim=1).to(n0.dtype)
        return replace(known, n0=noise, covariance=covariance[..., None])

    def overhead(self, state: ChannelState, uses: int, num_tx: int) -> Overhead:
        """Return the silent uses beside the cost of the other source."""
        known = self.gain.overhead(state, uses, num_tx)
        return Overhead(known.pilot_uses + self.uses, known.feedback_bits)

    def _listen(self, state: ChannelState, n0: Tensor, generator: torch.Generator) -> Tensor:
        """Draw what arrives, [B, R, uses], complex."""
        power, axes = torch.linalg.eigh(state.coloured().mean(dim=-1))
        scale = (power.clamp_min(0) + n0[:, None]).sqrt()
        shape = (*scale.shape, self.uses)
        return axes @ (scale[..., None] * complex_normal(shape, generator, axes.dtype))
