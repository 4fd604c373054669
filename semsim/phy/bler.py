"""Block error rates of 5G LDPC with QAM over AWGN, from counts measured with the true decoder.

Decoding a photo takes a CPU seconds to minutes, looking its block error rate up microseconds. The
counts lie in ``bler_counts.csv``, written by ``benchmarks/measure_bler.py``. Per scheme and block
length they are summed up by ``BLER = Q((snr_db - middle) / width)``; other lengths lie between the
measured ones of the same base graph linearly in 1 / sqrt(n), the order in which finite blocks lose
SNR. Below a BLER of about 1 % the curve is an extrapolation.

Nearly all of the width is the noise itself, which gives some blocks more information than others;
where that of a block is known (``realised``), little is left to chance.
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

from semsim.phy.circular_buffer import Graph, base_graph
from semsim.phy.mcs import mcs_by_index
from semsim.phy.qam import qam_information, qam_snr_db, qam_spread_db

COUNTS_FILE = Path(__file__).with_name("bler_counts.csv")
_FIT_ROUNDS = 30
_LEAST_CHANCE = 0.3  # share of the width that is the decoder's and not the noise's, at least
_OTHER_RATE = 0.1  # logarithm of the ratio; rounding to whole bits changes less
_FAR = 5.0  # widths from the middle: beyond, no point has weight
COLUMNS = ("mcs", "coded_bits", "snr_db", "blocks", "errors", "belief")


@dataclass(frozen=True)
class Count:
    """Decoded blocks at one SNR.

    Args:
        mcs: row of the MCS table.
        coded_bits: n.
        snr_db: Es/N0 of AWGN, dB.
        blocks: blocks sent.
        errors: blocks lost.
        belief: noise power that the decoder was told, over the true one.
    """

    mcs: int
    coded_bits: int
    snr_db: float
    blocks: int
    errors: int
    belief: float = 1.0


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
                float(row["belief"]),
            )
            for row in csv.DictReader(file)
        ]


def block_error_rate(snr_db: Tensor, mcs: int, coded_bits: int, realised: bool = False) -> Tensor:
    """Return the probability that a block is lost, same shape as ``snr_db``.

    Args:
        snr_db: Es/N0 of the AWGN channel that carries as much, dB.
        mcs: row of the MCS table.
        coded_bits: n, length of the block.
        realised: whether ``snr_db`` counts the noise that came, and not its mean; over AWGN the
            mean over noise is the same.
    """
    middle, width = waterfall(mcs, coded_bits)
    if realised:
        bits = mcs_by_index(mcs).bits_per_symbol
        spread = qam_spread_db(middle, bits, coded_bits // bits)
        width = math.sqrt(max(width**2 - spread**2, (_LEAST_CHANCE * width) ** 2))
    return 0.5 * torch.erfc((snr_db.double() - middle) / (width * math.sqrt(2)))


def code_error_rate(
    information: Tensor,
    belief: Tensor,
    mcs: int,
    info: int,
    coded: int,
    *,
    realised: bool = True,
    lost_db: Tensor | float = 0.0,
) -> Tensor:
    """Return the probability that a block of any length is lost, [...].

    Hybrid ARQ makes codes that are no row of the table: k information bits in n places. They are
    judged by the row of the nearest rate, at the same ratio of information to rate.

    Args:
        information: per place of the buffer, bits, [...].
        belief: noise power that the decoder was told over the true one, [...].
        mcs: row that was sent.
        info: k.
        coded: n, places that were heard of.
        realised: whether the information is that of the noise that came, and not its mean.
        lost_db: SNR that it is worth less, [...], dB (``semsim.phy.variation``).
    """
    rate, row = info / coded, mcs
    if abs(math.log(rate / mcs_by_index(mcs).rate)) > _OTHER_RATE:
        row = min(measured_mcs(), key=lambda one: abs(math.log(mcs_by_index(one).rate / rate)))
        information = (information * mcs_by_index(row).rate / rate).clamp(max=1.0)
    bits = mcs_by_index(row).bits_per_symbol
    snr_db = qam_snr_db(bits * information, bits)
    snr_db = snr_db - belief_loss_db(belief, rate, beyond_llr=True) - lost_db
    return block_error_rate(snr_db, row, coded, realised=realised)


def belief_loss_db(belief: Tensor, rate: float, beyond_llr: bool = False) -> Tensor:
    """Return how much SNR the decoder wastes by a wrong idea of the noise, dB.

    Measured with the true decoder at some beliefs; between them monotone cubics of log(belief),
    between the measured code rates linear, outside constant.

    Args:
        belief: noise power as believed over the true one, [...].
        rate: of the code.
        beyond_llr: count only what an account of the LLRs leaves out: what decoding loses beyond
            the information of LLRs that are too timid, and beyond that of LLRs of the right scale
            where they are too bold (belief propagation survives that at a small price).
    """
    from scipy.interpolate import PchipInterpolator

    octaves = belief.double().log2().cpu().numpy()
    curves = {}
    for mcs, losses in _belief_losses().items():
        at = np.array(sorted(losses))
        values = [losses[octave][int(beyond_llr)] for octave in at]
        inside = np.clip(octaves, at[0], at[-1])
        curves[mcs_by_index(mcs).rate] = PchipInterpolator(at, values)(inside)
    rates = sorted(curves)
    above = min(max(sum(rate > other for other in rates), 1), len(rates) - 1)
    low, high = rates[above - 1], rates[above]
    share = min(max((rate - low) / (high - low), 0.0), 1.0)
    return torch.as_tensor((1 - share) * curves[low] + share * curves[high], device=belief.device)


@cache
def waterfall(mcs: int, coded_bits: int) -> tuple[float, float]:
    """Return the SNR of BLER 1/2 and the width of the waterfall (one standard deviation), dB."""
    graphs = _fits().get(mcs)
    if graphs is None:
        measured = ", ".join(map(str, measured_mcs()))
        raise ValueError(
            f"MCS {mcs} has no measured BLER curve; there are {measured}. "
            "Use engine 'ldpc', or measure it with benchmarks/measure_bler.py"
        )
    fits = graphs.get(_graph(mcs, coded_bits)) or max(graphs.values(), key=len)
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


Fits = dict[int, tuple[float, float]]  # coded bits -> middle and width, dB


@cache
def _fits() -> dict[int, dict[Graph, Fits]]:
    """Return the curves of each row, apart for the two base graphs."""
    fits: dict[int, dict[Graph, Fits]] = defaultdict(lambda: defaultdict(dict))
    for (mcs, coded_bits, belief), points in _grouped(read_counts()).items():
        if belief == 1 and (fit := fit_waterfall(points)) is not None:
            fits[mcs][_graph(mcs, coded_bits)][coded_bits] = fit
    return fits


@cache
def _belief_losses() -> dict[int, dict[float, tuple[float, float]]]:
    """Return row -> log2(belief) -> loss in dB, all of it and beyond what the LLRs tell."""
    losses: dict[int, dict[float, tuple[float, float]]] = defaultdict(lambda: {0.0: (0.0, 0.0)})
    for (mcs, coded_bits, belief), points in _grouped(read_counts()).items():
        if belief != 1 and (fit := fit_waterfall(points)) is not None:
            bits, middle = mcs_by_index(mcs).bits_per_symbol, waterfall(mcs, coded_bits)[0]
            carried = qam_information(torch.tensor(fit[0]), bits, max(belief, 1.0))
            beyond = float(qam_snr_db(carried, bits)) - middle
            losses[mcs][math.log2(belief)] = (fit[0] - middle, beyond)
    return losses


def _grouped(counts: list[Count]) -> dict[tuple[int, int, float], list[Count]]:
    groups: dict[tuple[int, int, float], list[Count]] = defaultdict(list)
    for count in counts:
        groups[count.mcs, count.coded_bits, count.belief].append(count)
    return groups


def _graph(mcs: int, coded_bits: int) -> Graph:
    rate = mcs_by_index(mcs).rate
    return base_graph(math.floor(coded_bits * rate), rate)


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
