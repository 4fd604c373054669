"""What a block loses because its bits are not equally good: a measured loss on its information.

    LLRs, or noise per symbol ─► value of each bit, by its place ─► SNR of AWGN with that mean value

Blocks with the same mean information are not decoded equally often. Where quality varies within a
block, as in fading and bursts, belief propagation needs more of it than over AWGN (an erased bit is
worse than many doubtful ones), and some places of the code matter more than others. So a bit is
worth

    value = (1 - c) w[place] information + c certainty,    certainty = tanh(llr / 2)

with the share c and the weights w of its row of the MCS table, fitted to true decoding by
``benchmarks/fit_variation.py`` and kept in ``bler_variation.csv``. Over AWGN nothing changes: the
reference has the same places and weights. Places are the two halves of a block's symbols, times
the bits of a label. Symbols that are good and bad in turn, as on two unequal streams under one
codeword, have no place of their own: how they meet the code's shifts depends on its lifting size,
so that up to 0.4 of the blocks may arrive more (row 16) or less (row 3) than is said here.

Sources: Brueninghaus and others, Link performance models for system level simulations of broadband
    radio access systems (2005), for effective SNRs; Land, Huber, Information combining (2006), for
    what quality does to codes.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semsim.phy.ldpc import Segmentation
from semsim.phy.mcs import mcs_by_index
from semsim.phy.qam import GRID_DB, llr_information, qam_bit_curves, qam_snr_db

VARIATION_FILE = Path(__file__).with_name("bler_variation.csv")
PARTS = 2  #: of a block's symbols
COLUMNS = ("mcs", "coded_bits", "graph", "blocks", "certainty", "weights")

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Value:
    """What a bit is worth, by its place.

    Args:
        bits_per_symbol: m.
        certainty: c, from 0 to 1.
        weights: w, [PARTS, m], mean 1.
    """

    bits_per_symbol: int
    certainty: float
    weights: tuple[tuple[float, ...], ...]

    def curves(self) -> Array:
        """Return the mean value of a symbol's bits over AWGN, [PARTS, GRID_DB]."""
        information, certainty = qam_bit_curves(self.bits_per_symbol)
        mean = np.array(self.weights) @ information / self.bits_per_symbol
        return (1 - self.certainty) * mean + self.certainty * certainty.mean(axis=0)

    def snr_db(self, value: Tensor) -> Tensor:
        """Return the SNR at which AWGN has this mean value, dB, within the grid."""
        curve = self.curves().mean(axis=0)
        rising = np.concatenate(([True], np.diff(curve) > 1e-12))
        found = np.interp(value.double().cpu().numpy(), curve[rising], GRID_DB[rising])
        return torch.as_tensor(found, device=value.device)


def varied_snr_db(n0: Tensor, cut: Segmentation) -> Tensor:
    """Return the SNR of AWGN at which blocks are lost as often as with this noise, [...], dB.

    Args:
        n0: noise left per symbol of a block, [..., L], linear, or a shorter stretch of it.
        cut: how the message was cut.
    """
    value = _value_of(cut)
    snr_db = -10 * torch.log10(n0.double()).cpu().numpy()
    whole = snr_db.shape[-1] == cut.symbols_per_block
    parts = np.array_split(snr_db, PARTS, axis=-1) if whole else [snr_db] * PARTS
    means = [
        np.interp(part, GRID_DB, curve).mean(axis=-1)
        for part, curve in zip(parts, value.curves(), strict=True)
    ]
    return value.snr_db(torch.as_tensor(np.mean(means, axis=0), device=n0.device))


def variation_loss_db(llr: Tensor, cut: Segmentation) -> Tensor:
    """Return how much less SNR blocks are worth than their mean information says, [C], dB.

    Args:
        llr: LLRs of the places of the buffer, in order, [C, n], honest, positive where they speak
            for the bit that was sent.
        cut: how the message was cut; where n is another length, places count alike.
    """
    value = _value_of(cut) if llr.shape[-1] == cut.coded else _alike(_value_of(cut))
    bits = value.bits_per_symbol
    parts = [
        part
        for half in llr.double().tensor_split(bits, dim=-1)
        for part in half.tensor_split(PARTS, dim=-1)
    ]
    weights = np.array(value.weights).T.ravel()
    information = torch.stack([llr_information(part) for part in parts], dim=-1)
    sure = torch.tanh(llr.double() / 2).mean(dim=-1)
    shares = torch.tensor([part.shape[-1] / llr.shape[-1] for part in parts], dtype=torch.float64)
    mean = (information * (shares * torch.as_tensor(weights)).to(llr.device)).sum(dim=-1)
    worth = value.snr_db((1 - value.certainty) * mean + value.certainty * sure)
    return qam_snr_db(bits * llr_information(llr), bits) - worth


def _value_of(cut: Segmentation) -> Value:
    """Return the value of bits of a row; places count alike on the other base graph."""
    graph, value = _fitted().get(cut.mcs.index, (cut.graph, None))
    if value is None:
        value = Value(cut.mcs.bits_per_symbol, 0.0, ((1.0,) * cut.mcs.bits_per_symbol,) * PARTS)
    return value if graph == cut.graph else _alike(value)


def _alike(value: Value) -> Value:
    return Value(value.bits_per_symbol, value.certainty, ((1.0,) * value.bits_per_symbol,) * PARTS)


@cache
def _fitted() -> dict[int, tuple[str, Value]]:
    """Return the base graph and the fitted value of each row."""
    fitted = {}
    with VARIATION_FILE.open(newline="") as file:
        for row in csv.DictReader(file):
            bits = mcs_by_index(int(row["mcs"])).bits_per_symbol
            weights = np.array(row["weights"].split(), dtype=np.float64).reshape(PARTS, bits)
            value = Value(bits, float(row["certainty"]), tuple(map(tuple, weights.tolist())))
            fitted[int(row["mcs"])] = (row["graph"], value)
    return fitted
