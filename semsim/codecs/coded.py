"""Bits over 5G's LDPC code and QAM: what BER and BLER curves of coded links show."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from channels.base import CSI
from semsim.codecs.symbols import check_equalised
from semsim.phy.ldpc import Segmentation, ldpc_demodulate, ldpc_modulate, segment
from semsim.phy.mcs import mcs_by_index
from semsim.phy.qam import qam_map
from semsim.types import End, Receiver, Transmitter

SHORTEST_CRC = 16  #: bits, of a message of one short block


class _Coded(End):
    def __init__(self, mcs: int = 2) -> None:
        super().__init__()
        self._row = mcs_by_index(mcs)
        self.mcs = mcs

    def plan(self, length: int) -> tuple[int, Segmentation]:
        """Return the fewest symbols whose code blocks hold so many bits, and the blocks."""
        each = self._row.efficiency
        count = math.ceil((length + SHORTEST_CRC) / each)  # rounding and further CRCs come on top
        while (plan := segment(count, self._row)).payload < length:
            # rounding may give back a bit of each block, and a symbol of each but the first
            missing = length - plan.payload - plan.blocks
            sure = math.floor(missing / each) - plan.blocks + 1
            count += max(1, sure) if plan.blocks else 1
        return count, plan


class CodedTransmitter(_Coded, Transmitter):
    """Bits to code blocks with a CRC each, by LDPC to Gray-labelled QAM; see ``semsim.phy.ldpc``.

        bits ─► + zeros to fill the blocks ─► CRC, LDPC, interleaver, QAM of each ─► symbols

    One modulation and rate for all items, whatever the channel: 5G's ``separate`` codec chooses.

    Args:
        mcs: row of 3GPP TS 38.214 table 5.1.3.1-2; 2 is QPSK at rate 0.30, 4 at 0.59, 8 16-QAM.
    """

    uses_csi = False
    constellation = True

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return the symbols for an item of this many bits."""
        if len(shape) != 1:
            raise ValueError(f"coded sends bits, [K] per item, got {list(shape)}; use payload bits")
        return self.plan(shape[0])[0]

    def forward(self, source: Tensor, csi: CSI, generator: torch.Generator | None = None) -> Tensor:
        """Return symbols [B, 1, symbols] for bits [B, K], 0 or 1; unit power in expectation."""
        count, plan = self.num_symbols(tuple(source.shape[1:])), self.plan(source.shape[1])[1]
        filled = nn.functional.pad(source, (0, plan.payload - source.shape[1]))
        blocks = filled.reshape(len(source) * plan.blocks, -1)
        symbols = ldpc_modulate(blocks, plan).reshape(len(source), -1)
        over = source.new_zeros(len(source), count - symbols.shape[1], plan.mcs.bits_per_symbol)
        filler = qam_map(over.flatten(1), plan.mcs.bits_per_symbol)
        return torch.cat([symbols, filler], dim=1).unsqueeze(1)


class CodedReceiver(_Coded, Receiver):
    """Symbols to LLRs to bits, by belief propagation; bits of a lost block are as decoded.

    Args:
        mcs: as sent.
    """

    agreed = ("mcs",)

    def forward(
        self,
        y: Tensor,
        csi: CSI,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return bits [B, K], 0 or 1."""
        count, plan = self.plan(shape[0])
        check_equalised("coded", y, csi, count, shape)
        used = plan.blocks * plan.symbols_per_block
        n0 = csi.n0.reshape(len(y), 1, -1).expand(-1, -1, y.shape[-1])
        received, noise = (p[:, 0, :used].reshape(-1, plan.symbols_per_block) for p in (y, n0))
        bits, _ = ldpc_demodulate(received, noise, plan)
        return bits.reshape(len(y), -1)[:, : shape[0]].to(y.real.dtype)
