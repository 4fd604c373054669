"""Gray-labelled QAM of unit power: bits to symbols, symbols to LLRs, and what they can carry."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from channels.sionna_bridge import device_key, sionna_phy
from channels.units import db_to_linear

ORDERS = (2, 4, 6, 8)  #: bits per symbol: QPSK, 16-QAM, 64-QAM, 256-QAM
_GRID_DB: NDArray[np.float64] = np.arange(-30.0, 50.0, 0.1)
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


def qam_information(snr_db: Tensor, bits_per_symbol: int) -> Tensor:
    """Return the bits per symbol that Gray QAM with bitwise LLRs carries over AWGN (BICM capacity).

    Source: Caire, Taricco, Biglieri, Bit-interleaved coded modulation (1998).

    Args:
        snr_db: Es/N0, dB, any shape.
        bits_per_symbol: m.
    """
    _check_order(bits_per_symbol)
    carried = np.interp(snr_db.double().cpu().numpy(), _GRID_DB, _information(bits_per_symbol))
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
    mean = qam_information(snr_db, bits_per_symbol).mean(dim=-1)
    curve = _information(bits_per_symbol)
    rising = np.concatenate(([True], np.diff(curve) > 1e-12))  # flat where all m bits get through
    found = np.interp(mean.cpu().numpy(), curve[rising], _GRID_DB[rising])
    return torch.as_tensor(found, device=n0.device)


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
def _information(bits_per_symbol: int) -> NDArray[np.float64]:
    """Return the BICM capacity over ``_GRID_DB``: two equal PAMs, integrated by Gauss-Hermite."""
    bits = bits_per_symbol // 2
    labels = np.arange(2**bits)
    levels = 2.0 * labels - (2**bits - 1)
    levels /= math.sqrt(2 * np.mean(levels**2))  # half of the symbol's power
    gray = labels ^ (labels >> 1)
    nodes, weights = np.polynomial.hermite.hermgauss(32)
    return np.array(
        [
            2 * _pam_information(levels, gray, bits, float(noise), nodes, weights)
            for noise in 1 / db_to_linear(torch.as_tensor(_GRID_DB)).numpy()
        ]
    )


def _pam_information(
    levels: NDArray[np.float64],
    gray: NDArray[np.int64],
    bits: int,
    n0: float,
    nodes: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> float:
    """Return sum over bits of I(bit; y), bits per real dimension with noise n0 / 2."""
    y = levels[:, None] + math.sqrt(n0) * nodes  # [level sent, node]
    exponent = -((y[..., None] - levels) ** 2) / n0
    likelihood = np.exp(exponent - exponent.max(axis=-1, keepdims=True))  # [sent, node, level]
    lost = 0.0
    for bit in range(bits):
        same = (gray[:, None] >> bit & 1) == (gray >> bit & 1)  # [sent, level]
        share = (likelihood * same[:, None]).sum(-1) / likelihood.sum(-1)
        lost -= float((np.log2(np.maximum(share, 1e-300)) @ weights).mean()) / math.sqrt(math.pi)
    return bits - lost
