"""Gray-labelled QAM of unit power: bits to symbols, symbols to LLRs, and what they can carry."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from channels.sionna_bridge import device_key, sionna_phy
from channels.units import db_to_linear

ORDERS = (2, 4, 6, 8)  #: bits per symbol: QPSK, 16-QAM, 64-QAM, 256-QAM
GRID_DB: NDArray[np.float64] = np.arange(-30.0, 50.0, 0.1)  #: SNRs of the tables here
_GRID_N0: NDArray[np.float64] = 1 / db_to_linear(torch.as_tensor(GRID_DB)).numpy()
_SCALE_STEPS = 10  # halvings of 12 octaves: one per cent
_SYMBOLS_AT_ONCE = 1 << 18  # a demapper holds one distance per symbol and constellation point


def qam_map(bits: Tensor, bits_per_symbol: int) -> Tensor:
    """Map bits [B, K m] (0 or 1) to complex symbols [B, K], E|x|^2 = 1 for equiprobable bits."""
    _check_order(bits_per_symbol)
    if bits.dim() != 2 or bits.shape[1] % bits_per_symbol:
        raise ValueError(
            f"{2**bits_per_symbol}-QAM maps bits of shape [B, K * {bits_per_symbol}], "
            f"got {list(bits.shape)}"
        )
    return _mapper(bits_per_symbol, device_key(bits.device))(bits.float())


def qam_points(bits_per_symbol: int) -> Tensor:
    """Return all 2^m points, complex, mean power 1."""
    _check_order(bits_per_symbol)
    return _mapper(bits_per_symbol, "cpu").constellation().detach().clone()


def qam_nearest(y: Tensor, bits_per_symbol: int) -> Tensor:
    """Return the bits of the nearest constellation point: the hard decision of textbooks.

    At low SNR a decision by LLRs errs up to 1 % less often on 16-QAM and more: it takes the bit
    that is likelier over all points.

    Args:
        y: unbiased symbols, [B, K], complex.
        bits_per_symbol: m.

    Returns:
        [B, K m], 0 or 1, float.
    """
    levels, labels = (part.to(y.device) for part in _one_axis(bits_per_symbol))
    between = ((levels[1:] + levels[:-1]) / 2).to(y.real.dtype)
    axes = torch.view_as_real(y.resolve_conj()).contiguous()
    bits = labels[torch.bucketize(axes, between)]  # [B, K, 2, m / 2]
    return bits.transpose(2, 3).reshape(len(y), -1)


def qam_llr(y: Tensor, n0: Tensor, bits_per_symbol: int) -> Tensor:
    """Return LLRs ln(P(1) / P(0)) of the bits behind received symbols.

    Args:
        y: unbiased symbols, [B, K], complex.
        n0: noise power left in each, [B, K], linear.
        bits_per_symbol: m.

    Returns:
        [B, K m], exact (not max-log).
    """
    _check_order(bits_per_symbol)
    demapper = _demapper(bits_per_symbol, device_key(y.device))
    parts = zip(
        y.reshape(-1).split(_SYMBOLS_AT_ONCE),
        n0.expand(y.shape).reshape(-1).split(_SYMBOLS_AT_ONCE),
        strict=True,
    )
    return torch.cat([demapper(part, noise) for part, noise in parts]).view(len(y), -1)


def qam_information(snr_db: Tensor, bits_per_symbol: int, belief: float = 1.0) -> Tensor:
    """Return the bits per symbol that Gray QAM with bitwise LLRs carries over AWGN (BICM capacity).

    Source: Caire, Taricco, Biglieri, Bit-interleaved coded modulation (1998).

    Args:
        snr_db: Es/N0, dB, any shape.
        bits_per_symbol: m.
        belief: noise power that the LLRs are computed with, over the true one; what they carry is
            then less, and below 0 where they mislead.
    """
    _check_order(bits_per_symbol)
    curve = _information(bits_per_symbol, belief)[0]
    carried = np.interp(snr_db.double().cpu().numpy(), GRID_DB, curve)
    return torch.as_tensor(carried, device=snr_db.device)


def qam_effective_snr_db(n0: Tensor, bits_per_symbol: int) -> Tensor:
    """Return the SNR at which AWGN carries as much per symbol as these symbols do on average.

    Args:
        n0: noise left per unit-power symbol, [..., L], linear; the mean runs over L.
        bits_per_symbol: m.

    Returns:
        [...], dB, within [-30, 50].
    """
    snr_db = -10 * torch.log10(n0.double())
    return qam_snr_db(qam_information(snr_db, bits_per_symbol).mean(dim=-1), bits_per_symbol)


def qam_snr_db(information: Tensor, bits_per_symbol: int) -> Tensor:
    """Return the SNR at which AWGN carries so many bits per symbol, dB, within [-30, 50]."""
    curve = _information(bits_per_symbol)[0]
    rising = np.concatenate(([True], np.diff(curve) > 1e-12))  # flat where all m bits get through
    found = np.interp(information.double().cpu().numpy(), curve[rising], GRID_DB[rising])
    return torch.as_tensor(found, device=information.device)


def qam_spread_db(snr_db: float, bits_per_symbol: int, num_symbols: int) -> float:
    """Return by how much noise moves the information of a block, in dB of AWGN, one sigma.

    What L symbols carry, given their noise, is a sum of L independent terms of variance V, the
    dispersion: sqrt(V / L) bits per symbol, over the slope of :func:`qam_information`.

    Source: Polyanskiy, Poor, Verdu, Channel coding rate in the finite blocklength regime (2010).
    """
    mean, variance = _information(bits_per_symbol)
    slope = np.interp(snr_db, GRID_DB, np.gradient(mean, GRID_DB))
    return float(np.sqrt(np.interp(snr_db, GRID_DB, variance) / num_symbols) / slope)


def qam_signed_llr(y: Tensor, n0: Tensor, x: Tensor, bits_per_symbol: int) -> Tensor:
    """Return the LLRs of :func:`qam_llr`, positive where they speak for the bit that was sent.

    Args:
        y, n0, bits_per_symbol: as in :func:`qam_llr`.
        x: symbols as sent, [B, K], complex.
    """
    bits = qam_nearest(x, bits_per_symbol)
    return qam_llr(y, n0, bits_per_symbol) * (2 * bits - 1)


def llr_information(llr: Tensor) -> Tensor:
    """Return the mean information per bit, [C]: 1 - log2(1 + e^-llr), over the last axis.

    Args:
        llr: [C, n], positive where they speak for the bit that was sent.
    """
    return 1 - nn.functional.softplus(-llr.double()).mean(dim=-1) / math.log(2)


def best_scale(llr: Tensor) -> Tensor:
    """Return the factor on LLRs [C, n] at which they carry most, [C], within 1/64 and 64.

    Honest LLRs have 1, those of a receiver that takes the noise for f times what it is have f.

    Source: Martinez, Guillen i Fabregas, Caire, Willems, Bit-interleaved coded modulation
        revisited: a mismatched decoding perspective (2009).
    """
    low = llr.new_full((len(llr), 1), -6.0)
    high = -low
    for _ in range(_SCALE_STEPS):  # the slope of llr_information falls with the scale
        middle = (low + high) / 2
        more = (llr * torch.sigmoid(-llr * middle.exp2())).sum(dim=-1, keepdim=True) > 0
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    return ((low + high) / 2).exp2()[:, 0]


def _check_order(bits_per_symbol: int) -> None:
    if bits_per_symbol not in ORDERS:
        raise ValueError(
            f"bits_per_symbol is one of {', '.join(map(str, ORDERS))} (QPSK to 256-QAM), "
            f"got {bits_per_symbol}"
        )


@cache
def _one_axis(bits_per_symbol: int) -> tuple[Tensor, Tensor]:
    """Return the levels of the real axis, rising, and the label of each, [2^(m/2), m / 2].

    The real part carries the bits of even place in a label, the imaginary part the others.
    """
    points = qam_points(bits_per_symbol)
    index = torch.arange(len(points))
    bits = (index[:, None] >> torch.arange(bits_per_symbol - 1, -1, -1)) & 1
    first = (bits[:, 1::2] == 0).all(dim=1)  # one imaginary part
    levels, order = points.real[first].sort()
    return levels, bits[first][order, ::2].float()


@cache
def _mapper(bits_per_symbol: int, device: str) -> Any:
    with torch.inference_mode(False):
        return sionna_phy().mapping.Mapper("qam", bits_per_symbol, device=device)


@cache
def _demapper(bits_per_symbol: int, device: str) -> Any:
    with torch.inference_mode(False):
        return sionna_phy().mapping.Demapper("app", "qam", bits_per_symbol, device=device)


@cache
def _information(
    bits_per_symbol: int, belief: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and variance of a symbol's information in bits, over ``GRID_DB``.

    Two equal PAMs, integrated by Gauss-Hermite.
    """
    bits, levels, gray, nodes, weights = _pam(bits_per_symbol)
    moments = np.array(
        [
            _pam_information(levels, gray, bits, float(noise), belief, nodes, weights)
            for noise in _GRID_N0
        ]
    )
    return 2 * moments[:, 0], 2 * moments[:, 1]


def _pam(
    bits_per_symbol: int,
) -> tuple[int, NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return bits, levels and labels of one axis, and the nodes and weights to integrate by."""
    bits = bits_per_symbol // 2
    labels = np.arange(2**bits)
    levels = 2.0 * labels - (2**bits - 1)
    levels /= math.sqrt(2 * np.mean(levels**2))  # half of the symbol's power
    return bits, levels, labels ^ (labels >> 1), *np.polynomial.hermite.hermgauss(32)


@cache
def qam_bit_curves(bits_per_symbol: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what each bit of a symbol carries over AWGN, [m, grid], information and certainty.

    Information is that of :func:`llr_information`, certainty the mean of tanh(llr / 2); bits in the
    order of the label, SNRs those of :data:`GRID_DB`.
    """
    bits, levels, gray, nodes, weights = _pam(bits_per_symbol)
    mean = weights / weights.sum() / len(levels)
    curves = np.empty((2, bits, len(GRID_DB)))
    for place, n0 in enumerate(_GRID_N0):
        sure = _pam_certainty(levels, gray, bits, float(n0), 1.0, nodes)[::-1]  # sign first
        curves[0, :, place] = 1 + (np.log2(np.maximum(sure, 1e-300)) @ mean).sum(axis=-1)
        curves[1, :, place] = ((2 * sure - 1) @ mean).sum(axis=-1)
    information, certainty = curves.repeat(2, axis=1)  # real and imaginary axis in turn
    return information, certainty


def _pam_information(
    levels: NDArray[np.float64],
    gray: NDArray[np.int64],
    bits: int,
    n0: float,
    belief: float,
    nodes: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> tuple[float, float]:
    """Return mean and variance of the sum over bits of i(bit; y); noise n0 / 2, other belief."""
    sure = _pam_certainty(levels, gray, bits, n0, belief, nodes)
    carried = bits + np.log2(np.maximum(sure, 1e-300)).sum(axis=0)
    mean = float((carried @ weights).mean()) / math.sqrt(math.pi)
    square = float((carried**2 @ weights).mean()) / math.sqrt(math.pi)
    return mean, square - mean**2


def _pam_certainty(
    levels: NDArray[np.float64],
    gray: NDArray[np.int64],
    bits: int,
    n0: float,
    belief: float,
    nodes: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the probability that a receiver gives to each bit as sent, [bit, level sent, node]."""
    y = levels[:, None] + math.sqrt(n0) * nodes  # [level sent, node]
    exponent = -((y[..., None] - levels) ** 2) / (n0 * belief)
    likelihood = np.exp(exponent - exponent.max(axis=-1, keepdims=True))  # [sent, node, level]
    given = []
    for bit in range(bits):
        same = (gray[:, None] >> bit & 1) == (gray >> bit & 1)  # [sent, level]
        given.append((likelihood * same[:, None]).sum(-1) / likelihood.sum(-1))
    return np.stack(given)
