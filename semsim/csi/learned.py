"""A receiver's estimate of the channel, made better by what was learned."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from channels.base import CSI, ChannelState
from channels.csi import CSISource, Overhead
from semsim.csi.patches import spans
from semsim.csi.tasks import estimator_of
from semsim.payloads.channels import joined, parts
from semsim.payloads.pilot_estimates import off_grid, on_grid


class LearnedCSI(nn.Module):
    """Estimate from pilots as another source does, and let a trained network better the estimate.

        pilots ─► of ─► H of each element ─► encoder and head ─► H

    Pilots and their cost are those of ``of``; so is the noise that is believed, with the error of
    its estimate. What the network changes in that error is not estimated anew: it is smaller where
    the network was trained, and may be larger elsewhere. It sees 252 OFDM symbols at
    once, and of more as few and as equal parts as may be; train it on items (``symbols``) as long
    as those of the link, or of 252: what it learns of one slot makes an item of several worse.

    Args:
        of: the source, such as dmrs, over an OFDM grid.
        model: weights of a training of ``estimate_channel`` on payload ``pilot_estimates``, or of
            one that saw noise alone.
    """

    def __init__(self, of: CSISource, model: str) -> None:
        super().__init__()
        self.of = of
        self.network = estimator_of(model).eval().requires_grad_(False)

    def forward(
        self,
        state: ChannelState,
        n0: Tensor,
        generator: torch.Generator,
        received: CSI | None = None,
    ) -> CSI:
        """Return the source's belief with a better h; n0 [B], linear."""
        csi = self.of(state, n0, generator, received)
        if csi.h is None or state.grid is None:
            raise ValueError(
                "csi learned betters an estimate over an OFDM grid; let it stand on dmrs, and use "
                "a channel such as tdl, cdl, umi or uma, without another stage such as erasure"
            )
        width, uses = state.grid.subcarriers, csi.h.shape[-1]
        over = -uses % width  # of the last symbol
        h = torch.nn.functional.pad(csi.h.to(torch.complex64), (0, over))
        grid = on_grid(h, width)
        seen = [self.network(parts(some)) for some in grid.split(spans(grid.shape[1]), dim=1)]
        told = off_grid(joined(torch.cat(seen, dim=1)), csi.h.shape[1])[..., :uses]
        return replace(csi, h=told.to(csi.h.dtype))

    def overhead(self, state: ChannelState, uses: int, num_tx: int) -> Overhead:
        """Return what the source costs."""
        return self.of.overhead(state, uses, num_tx)
