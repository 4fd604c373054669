"""No link at all: what a task could do if the source arrived as it is. The bound of every link."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from semsim.hop import check_tensor
from semsim.link import Link
from semsim.types import Ledger, Transmission, Transmitter


class NoLinkTransmitter(Transmitter):
    """Hand the source over as it is; nothing goes into the channel, and nothing is charged."""

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return 0."""
        return 0


class NoLink(Link):
    """A link whose estimate is the source, whatever the channel; arguments as in ``Link``."""

    ignores_channel = True

    def transmit(
        self,
        source: Tensor,
        snr_db: float | Tensor,
        generator: torch.Generator,
        begun: Any = None,
    ) -> Transmission:
        """Return the source as the estimate, at no channel use and no power."""
        check_tensor(source)
        silence = source.new_zeros(len(source), 1, 1, dtype=torch.complex64)
        return Transmission(estimate=source, x=silence, ledger=Ledger(payload=0))


NoLinkTransmitter.link_class = NoLink
