"""How likely all blocks of a message arrive, for the noise that each symbol meets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from channels.base import CSI
from semsim.phy.bler import block_error_rate
from semsim.phy.ldpc import Segmentation
from semsim.phy.qam import qam_effective_snr_db


def delivered(n0: Tensor, cut: Segmentation) -> Tensor:
    """Return the probability that every block arrives, [B].

    Each block counts with the SNR of the AWGN channel of the same mutual information.

    Args:
        n0: noise left per symbol, [B, K], linear; a shorter stretch stands for all blocks.
        cut: blocks, in order of the symbols.
    """
    if cut.blocks == 0:
        return n0.new_zeros(len(n0), dtype=torch.float64)
    return arrival(block_snr_db(n0, cut), cut)


def block_snr_db(n0: Tensor, cut: Segmentation) -> Tensor:
    """Return the SNR of AWGN that carries as much as each block does, [B, blocks], dB.

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
    return qam_effective_snr_db(grid, cut.mcs.bits_per_symbol)


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
    if csi.h is not None:
        raise ValueError(
            "separate detects each stream by itself and needs a front end that separates "
            "them, got frontend none; use lmmse, zf, svd or rzf"
        )
    return csi.n0


def with_hidden_noise(y: Tensor, symbols: Tensor, n0: Tensor, stretch: int) -> Tensor:
    """Return n0 [K], raised where symbols came out worse than the receiver believes.

    Wrong CSI, clipping or phase noise do not show in n0. Over a stretch of L symbols, honest noise
    has mean |y - x|^2 / n0 = 1 with standard error 1 / sqrt(L); beyond five of them it is not.

    Args:
        y: symbols as received, [K], complex.
        symbols: as sent, [K], complex.
        n0: what the front end believes it left, [K], linear.
        stretch: L.
    """
    stretch = min(max(stretch, 1), len(y))
    used = len(y) // stretch * stretch
    ratio = ((y - symbols).abs().square() / n0)[:used].view(-1, stretch).mean(dim=1)
    ratio = torch.where(ratio > 1 + 5 / math.sqrt(stretch), ratio, torch.ones_like(ratio))
    raised = n0.clone()
    raised[:used] *= ratio.repeat_interleave(stretch)
    return raised
