"""5G LDPC in equal blocks with a CRC each: bits in, symbols out, and back.

    payload ─► + CRC ─► LDPC + rate matching ─► QAM ─► channel ─► LLR ─► LDPC ─► CRC ok? ─► payload

A message of K symbols is cut into C = ceil(K m / 6144) blocks of the same length, a multiple of m;
the at most C - 1 symbols that are left over are sent as padding. A block has at most 6144 coded and
so at most 5688 information bits (3GPP TS 38.212 allows 8448), and its own CRC: 24 bits, or 16 where
a single block has at most 3824 bits. The standard's further CRC over all blocks is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from channels.sionna_bridge import device_key, sionna_phy
from semsim.phy.circular_buffer import (
    Graph,
    base_graph,
    code_buffer,
    deinterleave,
    interleave,
    read_places,
)
from semsim.phy.mcs import MCS
from semsim.phy.qam import qam_llr, qam_map

MAX_CODED_BITS = 6144
_MIN_INFO_BITS = 12  # the shortest block of the standard's second base graph
_BLOCKS_AT_ONCE = 32


@dataclass(frozen=True)
class Segmentation:
    """How a message is cut into code blocks.

    Args:
        mcs: modulation and code rate.
        blocks: C; 0 where not even one block fits.
        coded: n, coded bits per block.
        info: k, information bits per block, CRC included.
        crc: CRC bits per block.
    """

    mcs: MCS
    blocks: int
    coded: int
    info: int
    crc: int

    @property
    def payload(self) -> int:
        """Bits of the message that all blocks carry together."""
        return self.blocks * (self.info - self.crc)

    @property
    def graph(self) -> Graph:
        """Base graph of the code."""
        return base_graph(self.info, self.info / self.coded)

    @property
    def symbols_per_block(self) -> int:
        """L = n / m."""
        return self.coded // self.mcs.bits_per_symbol


def segment(num_symbols: int, mcs: MCS) -> Segmentation:
    """Cut ``num_symbols`` complex symbols into code blocks."""
    bits = mcs.bits_per_symbol
    blocks = max(1, math.ceil(num_symbols * bits / MAX_CODED_BITS))
    coded = num_symbols // blocks * bits
    info = math.floor(coded * mcs.rate)
    crc = 16 if blocks == 1 and info <= 3824 else 24
    if info < max(_MIN_INFO_BITS, crc + 1):
        return Segmentation(mcs, 0, 0, 0, 0)
    return Segmentation(mcs, blocks, coded, info, crc)


def ldpc_modulate(payload: Tensor, plan: Segmentation, version: int = 0) -> Tensor:
    """Return the symbols [C, L] of a payload [C, k - crc] of bits, float 0 or 1.

    Args:
        payload: bits of each block.
        plan: how the message was cut.
        version: redundancy version, 0 to 3; hybrid ARQ sends further ones.
    """
    key = device_key(payload.device)
    places = read_places(plan.info, plan.graph, version, plan.coded)
    buffer = code_buffer(plan.info, plan.graph, int(places.max()) + 1, key)
    coded = buffer.write(_crc(plan.crc, key)[0](payload.float()))[:, places]
    return qam_map(interleave(coded, plan.mcs.bits_per_symbol), plan.mcs.bits_per_symbol)


def ldpc_demodulate(y: Tensor, n0: Tensor, plan: Segmentation) -> tuple[Tensor, Tensor]:
    """Decode blocks that were sent once.

    Args:
        y: unbiased symbols of each block, [C, L], complex.
        n0: noise left in each, [C, L], linear.
        plan: what the transmitter used.

    Returns:
        payload [C, k - crc], float 0 or 1, and whether its CRC holds, [C], bool.
    """
    soft = SoftBlocks(plan)
    soft.add(qam_llr(y, n0, plan.mcs.bits_per_symbol))
    return soft.decode()


class SoftBlocks:
    """What a receiver remembers of its blocks: the sum of all LLRs of each place of the buffer.

    Args:
        plan: what the transmitter used.
    """

    def __init__(self, plan: Segmentation) -> None:
        self._plan = plan
        self._heard = torch.zeros(0, dtype=torch.bool)
        self._llr = torch.zeros(0)

    @property
    def llr(self) -> Tensor:
        """LLRs of the places that were heard of, [C, places]."""
        return self._llr[:, self._heard]

    def add(self, llr: Tensor, version: int = 0) -> None:
        """Combine with what is there: LLRs [C, n] in order of sending, and their version."""
        plan = self._plan
        places = read_places(plan.info, plan.graph, version, plan.coded).to(llr.device)
        extent = max(int(places.max()) + 1, len(self._heard))
        sums, heard = llr.new_zeros(len(llr), extent), llr.new_zeros(extent, dtype=torch.bool)
        if len(self._heard):
            sums[:, : len(self._heard)] = self._llr
            heard[: len(self._heard)] = self._heard
        heard[places] = True
        in_order = deinterleave(llr, plan.mcs.bits_per_symbol)
        self._llr, self._heard = sums.index_add_(1, places, in_order), heard

    def decode(self) -> tuple[Tensor, Tensor]:
        """Return the payload [C, k - crc], float 0 or 1, and whether its CRC holds, [C], bool."""
        plan, key = self._plan, device_key(self._llr.device)
        buffer = code_buffer(plan.info, plan.graph, self._llr.shape[-1], key)
        check = _crc(plan.crc, key)[1]
        bits, good = [], []
        with torch.no_grad():
            for part in self._llr.split(_BLOCKS_AT_ONCE):
                payload, ok = check(buffer.decode(part))
                bits.append(payload)
                good.append(ok.reshape(-1).bool())
        return torch.cat(bits), torch.cat(good)


@cache
def _crc(degree: int, device: str) -> tuple[Any, Any]:
    crc = sionna_phy().fec.crc
    with torch.inference_mode(False):
        encoder = crc.CRCEncoder("CRC24A" if degree == 24 else "CRC16", device=device)
        return encoder, crc.CRCDecoder(encoder, device=device)
