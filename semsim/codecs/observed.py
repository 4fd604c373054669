"""Seen through noise: what a receiver has of a channel whose every coefficient carries a pilot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from channels.streams import check_generator
from semsim.codecs.no_link import NoLink, NoLinkTransmitter
from semsim.hop import n0_of
from semsim.types import Ledger, Transmission


class ObservedTransmitter(NoLinkTransmitter):
    """Show the source through noise at the SNR, over each item's own power; of real values.

    A pair of values, such as the two parts of a channel's coefficient, costs a pilot.
    The power of pilots is not counted.
    """


class Observed(NoLink):
    """A link whose estimate is the source and Gaussian noise, whatever the channel."""

    ignores_channel = False

    def transmit(
        self,
        source: Tensor,
        snr_db: float | Tensor,
        generator: torch.Generator,
        begun: Any = None,
    ) -> Transmission:
        """Return source + e, with |e|^2 over |source|^2 = 1 / SNR in the mean of each item."""
        check_generator(generator)
        sent = super().transmit(source, snr_db, generator, begun)
        power = source.square().flatten(1).mean(dim=1)
        scale = (power * n0_of(snr_db, source)).sqrt().view(-1, *[1] * (source.dim() - 1))
        noise = torch.randn(source.shape, generator=generator, device=source.device)
        pilots = source[0].numel() / 2
        return replace(
            sent, estimate=source + scale * noise, ledger=Ledger(payload=0, pilots=pilots)
        )


ObservedTransmitter.link_class = Observed
