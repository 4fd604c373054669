"""Block error rates of 5G LDPC with QAM over AWGN, from counts measured with the true decoder.

Decoding a photo takes a CPU seconds to minutes, looking its block error rate up microseconds. The
counts lie in ``bler_counts.csv``, written by ``benchmarks/measure_bler.py``. Per scheme and block
length they are summed up by ``BLER = Q((snr_db - middle) / width)``; other lengths lie between the
measured ones linearly in 1 / sqrt(n), the order in which finite blocks lose SNR. Below a BLER of
about 1 % the curve is an extrapolation.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semsim.phy.mcs import MCS_TABLE

COUNTS_FILE = Path(__file__).with_name("bler_counts.csv")
_FIT_ROUNDS = 30
_FAR = 5.0  # widths from the middle: beyond, no point has weight
COLUMNS = ("mcs", "coded_bits", "snr_db", "blocks", "errors")


@dataclass(frozen=True)
class Count:
    """Decoded blocks at one SNR.

    Args:
        mcs: row of the MCS table.
        coded_bits: n.
        snr_db: Es/N0 of AWGN, dB.
        blocks: blocks sent.
        errors: blocks lost.
    """

    mcs: int
    coded_bits: int
    snr_db: float
    blocks: int
    errors: int


def read_counts(path: Path = COUNTS_FILE) -> list[Count]:
    """Read measured counts."""
    with path.open(newline="") as file:
        return [
            Count(
                int(row["mcs"]),
                int(row["coded_bits"]),
                float(row["snr_db"]),
                int(row["blocks"]),
                int(row["errors"]),
            )
            for row in csv.DictReader(file)
        ]


def block_error_rate(snr_db: Tensor, mcs: int, coded_bits: int) -> Tensor:
    """Return the probability that a block is lost, same shape as ``snr_db``.

    Args:
        snr_db: Es/N0 of the AWGN channel that carries as much, dB.
        mcs: row of the MCS table.
        coded_bits: n, length of the block.
    """
    middle, width = waterfall(mcs, coded_bits)
    return 0.5 * torch.erfc((snr_db.double() - middle) / (width * math.sqrt(2)))


@cache
def waterfall(mcs: int, coded_bits: int) -> tuple[float, float]:
    """Return the SNR of BLER 1/2 and the width of the waterfall (one standard deviation), dB."""
    fits = _fits().get(mcs)
    if fits is None:
        measured = ", ".join(map(str, measured_mcs()))
        raise ValueError(
            f"MCS {mcs} has no measured BLER curve; there are {measured}. "
            "Use engine 'ldpc', or measure it with benchmarks/measure_bler.py"
        )
    lengths = sorted(fits, reverse=True)
    where = [1 / math.sqrt(length) for length in lengths]
    at = 1 / math.sqrt(coded_bits)
    middle, width = (
        _line(at, where, [fits[length][part] for length in lengths]) for part in (0, 1)
    )
    return middle, max(width, 0.02)


@cache
def measured_mcs() -> tuple[int, ...]:
    """Return the MCS rows with a measured curve."""
    return tuple(sorted(_fits()))


@cache
def _fits() -> dict[int, dict[int, tuple[float, float]]]:
    counts: dict[tuple[int, int], list[Count]] = defaultdict(list)
    for count in read_counts():
        counts[count.mcs, count.coded_bits].append(count)
    fits: dict[int, dict[int, tuple[float, float]]] = defaultdict(dict)
    for (mcs, coded_bits), points in counts.items():
        if mcs in MCS_TABLE and (fit := fit_waterfall(points)) is not None:
            fits[mcs][coded_bits] = fit
    return dict(fits)


def fit_waterfall(points: list[Count]) -> tuple[float, float] | None:
    """Return middle and width of the Q curve most likely behind the counts, dB.

    Binomial regression with a probit link by iteratively reweighted least squares. None without two
    SNRs at which some blocks were lost and some were not.

    Source: McCullagh, Nelder, Generalized linear models (1989), section 2.5.
    """
    from scipy import special

    if sum(0 < point.errors < point.blocks for point in points) < 2:
        return None
    snr_db, blocks, errors = np.array([(p.snr_db, p.blocks, p.errors) for p in points]).T
    rate = (errors + 0.5) / (blocks + 1)  # keeps 0 and 1 finite
    score = special.ndtri(1 - rate)
    for _ in range(_FIT_ROUNDS):
        density = np.exp(-(score**2) / 2) / math.sqrt(2 * math.pi)
        rate = special.ndtr(-score)
        weight = density * np.sqrt(blocks / (rate * (1 - rate)))
        slope, offset = np.polyfit(snr_db, score + (rate - errors / blocks) / density, 1, w=weight)
        score = (slope * snr_db + offset).clip(-_FAR, _FAR)
    return float(-offset / slope), float(1 / slope)


def _line(at: float, where: list[float], values: list[float]) -> float:
    """Interpolate linearly; go on along the last piece outside."""
    if len(where) == 1:
        return values[0]
    piece = min(max(sum(at > edge for edge in where) - 1, 0), len(where) - 2)
    share = (at - where[piece]) / (where[piece + 1] - where[piece])
    return values[piece] + share * (values[piece + 1] - values[piece])
