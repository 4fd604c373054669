"""No link at all: what a task could do if the source arrived as it is. The bound of every link."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from channels.base import CSI, Channel
from channels.csi import CSISource
from semsim.link import Link
from semsim.phy.frontend import FrontEnd
from semsim.types import Ledger, Receiver, Transmission, WithSideInfo


class NoLinkTransmitter(nn.Module):
    """Hand the source over as it is; nothing goes into the channel, and nothing is charged."""

    link_class: ClassVar[type[nn.Module]]
    uses_csi = True  # there are no symbols to encode once

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return 0."""
        return 0

    def forward(self, source: Tensor, csi: CSI) -> Tensor:
        """Return no symbols, [B, 1, 0]."""
        return source.new_zeros(len(source), 1, 0, dtype=torch.complex64)


class NoLinkReceiver(nn.Module):
    """The other half of no link; it is never asked."""

    def forward(self, y: Tensor, csi: CSI, shape: tuple[int, ...]) -> Tensor:
        """Raise ValueError: without a link nothing is received."""
        raise ValueError("no_link has no receiver of its own; write it as transmitter alone")


class NoLink(Link):
    """A link whose estimate is the source, whatever the channel; arguments as in ``Link``."""

    ignores_channel = True  # all SNRs are one: a sweep sends once

    def __init__(
        self,
        transmitter: NoLinkTransmitter,
        channel: Channel,
        receiver: Receiver | None = None,
        *,
        csi_rx: CSISource | None = None,
        csi_tx: CSISource | None = None,
        frontend: FrontEnd | None = None,
    ) -> None:
        if receiver is not None and not isinstance(receiver, NoLinkReceiver):
            raise ValueError(
                f"no_link takes no receiver, got {type(receiver).__name__}; leave receiver out"
            )
        super().__init__(
            transmitter,
            channel,
            receiver or NoLinkReceiver(),
            csi_rx=csi_rx,
            csi_tx=csi_tx,
            frontend=frontend,
        )

    def transmit(
        self,
        source: Tensor,
        snr_db: float | Tensor,
        generator: torch.Generator,
        symbols: Tensor | WithSideInfo | None = None,
        features: Tensor | None = None,
    ) -> Transmission:
        """Return the source as the estimate, at no channel use and no power."""
        silence = source.new_zeros(len(source), 1, 1, dtype=torch.complex64)
        return Transmission(estimate=source, x=silence, ledger=Ledger(payload=0))


NoLinkTransmitter.link_class = NoLink
