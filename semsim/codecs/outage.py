"""How likely all blocks of a message arrive, for the noise that each symbol meets."""

from __future__ import annotations

import torch
from torch import Tensor

from channels.base import CSI
from semsim.phy.bler import block_error_rate, code_error_rate
from semsim.phy.ldpc import Segmentation, SoftBlocks
from semsim.phy.qam import best_scale, llr_information
from semsim.phy.variation import variation_loss_db, varied_snr_db


def delivered(n0: Tensor, cut: Segmentation) -> Tensor:
    """Return the probability that every block arrives, [B].

    Each block counts with the SNR of the AWGN channel over which it is lost as often.

    Args:
        n0: noise left per symbol, [B, K], linear; a shorter stretch stands for all blocks.
        cut: blocks, in order of the symbols.
    """
    if cut.blocks == 0:
        return n0.new_zeros(len(n0), dtype=torch.float64)
    return arrival(block_snr_db(n0, cut), cut)


def block_snr_db(n0: Tensor, cut: Segmentation) -> Tensor:
    """Return the SNR of AWGN over which each block is lost as often, [B, blocks], dB.

    Where ``n0`` is a shorter stretch, one column stands for all blocks.

    Args:
        n0: noise left per symbol, [B, K] or a shorter stretch, linear.
        cut: blocks, in order of the symbols; at least one.
    """
    used = cut.blocks * cut.symbols_per_block
    blocks, length = cut.blocks, cut.symbols_per_block
    if n0.shape[-1] < used:
        blocks, length, used = 1, n0.shape[-1], n0.shape[-1]
    grid = n0[:, :used].reshape(len(n0), blocks, length)
    return varied_snr_db(grid, cut)


def arrival(snr_db: Tensor, cut: Segmentation) -> Tensor:
    """Return the probability that every block arrives, [...].

    Args:
        snr_db: of each block, [..., blocks], dB; a single column stands for all.
        cut: blocks; at least one.
    """
    good = 1 - block_error_rate(snr_db, cut.mcs.index, cut.coded)
    return good.prod(dim=-1) ** (cut.blocks // snr_db.shape[-1])


def separated(csi: CSI) -> Tensor:
    """Return the noise that a front end left, [B, S, N]; ValueError where it separates nothing."""
    if not csi.separated:
        raise ValueError(
            "separate detects each stream by itself and needs a front end that separates "
            "them, got frontend none; use lmmse, zf, svd or rzf"
        )
    return csi.n0


def arrived(soft: SoftBlocks, cut: Segmentation) -> Tensor:
    """Return the probability that each block arrives, given what its bits became, [C].

    A block counts with the information that its LLRs carry: at the scale that fits them best where
    the receiver takes the noise for less than it is, and as they are where it takes it for more;
    less what it loses because its bits are not equally good.

    Args:
        soft: LLRs, positive where they speak for the bit that was sent.
        cut: how the message was cut.
    """
    llr = soft.llr
    scale = best_scale(llr)
    carried = llr_information(llr * scale.clamp(max=1.0)[:, None])
    lost_db = variation_loss_db(llr * scale[:, None], cut)
    return 1 - code_error_rate(
        carried, scale, cut.mcs.index, cut.info, llr.shape[-1], lost_db=lost_db
    )
