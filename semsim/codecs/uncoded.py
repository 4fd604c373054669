"""Bits over QAM without a channel code: what BER curves of textbooks show."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from channels.base import CSI
from semsim.codecs.symbols import check_equalised
from semsim.phy.qam import qam_map, qam_nearest
from semsim.types import End, Receiver, Transmitter


class _Uncoded(End):
    def __init__(self, bits_per_symbol: Literal[2, 4, 6, 8] = 2) -> None:
        super().__init__()
        self.bits_per_symbol = bits_per_symbol

    def symbols(self, length: int) -> int:
        """Return how many symbols so many bits fill."""
        return -(-length // self.bits_per_symbol)


class UncodedTransmitter(_Uncoded, Transmitter):
    """Bits to Gray-labelled QAM symbols; the last symbol is filled up with zeros.

    Args:
        bits_per_symbol: 2 (QPSK), 4 (16-QAM), 6 (64-QAM) or 8 (256-QAM).
    """

    uses_csi = False
    constellation = True

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return the symbols for an item of this many bits."""
        if len(shape) != 1:
            raise ValueError(
                f"uncoded sends bits, [K] per item, got {list(shape)}; use payload bits"
            )
        return self.symbols(shape[0])

    def forward(self, source: Tensor, csi: CSI, generator: torch.Generator | None = None) -> Tensor:
        """Return symbols [B, 1, K / m] for bits [B, K], 0 or 1; unit power in expectation."""
        missing = self.num_symbols(tuple(source.shape[1:])) * self.bits_per_symbol - source.shape[1]
        return qam_map(nn.functional.pad(source, (0, missing)), self.bits_per_symbol)[:, None]


class UncodedReceiver(_Uncoded, Receiver):
    """Symbols to the bits of the nearest constellation point, the decision of the closed forms.

    Args:
        bits_per_symbol: as sent.
    """

    agreed = ("bits_per_symbol",)

    def forward(
        self,
        y: Tensor,
        csi: CSI,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return bits [B, K], 0 or 1."""
        check_equalised("uncoded", y, csi, self.symbols(shape[0]), shape)
        return qam_nearest(y[:, 0], self.bits_per_symbol)[:, : shape[0]]
