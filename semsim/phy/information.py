"""How many bits the channel uses of one item carry, for Gaussian symbols and a given noise.

    I = sum over uses of log2 det(1 + C^-1 H Q H^H),  C = n0 + covariance of the interference

C is what the interference really is, not its mean power, and the receiver knows H and C. A
transmitter that knows them too fills water over eigenmodes and uses, at the power that an item is
promised: trace(Q) is 1 on the average of its uses, and no power moves between items.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from channels.base import ChannelState
from semsim.phy.blocklength import Code, dispersion
from semsim.phy.combining import inverse_root, per_use_product
from semsim.phy.theory import water_filling

LEAST_N0 = 1e-30  #: 300 dB; without noise a channel would carry everything
_STEPS = 30  # of the search for the best powers


@dataclass(frozen=True)
class Information:
    """What items carry.

    Args:
        bits: per item, [...], all its uses together.
        variance: of the information density, bits^2, [...].
    """

    bits: Tensor
    variance: Tensor


def seen_through(state: ChannelState, n0: Tensor) -> Tensor:
    """Return C^(-1/2) H, [B, 1 or N, R, T]: the channel with noise and interference of power 1.

    Args:
        state: the realisation.
        n0: noise power, [B], linear.
    """
    noise = n0.to(torch.float64).clamp_min(LEAST_N0)[:, None, None, None]
    if state.covariance is None:
        return (state.h / (noise + state.interference).sqrt()).permute(0, 3, 1, 2)
    eye = torch.eye(state.h.shape[1], dtype=torch.float64, device=n0.device)[..., None]
    root = inverse_root(state.h, state.covariance + noise * eye)
    return per_use_product(root, state.h.to(torch.complex128)).permute(0, 3, 1, 2)


def informed(seen: Tensor, uses: int, code: Code) -> Information:
    """Return what items carry whose transmitter knows the channel and fills water.

    Args:
        seen: of :func:`seen_through`.
        uses: channel uses of an item.
        code: for the variance.
    """
    gains = _eigenmodes(seen)
    flat = gains.flatten(1)
    share = water_filling(flat, power=float(seen.shape[1]))
    return _carried((share * flat).view_as(gains), uses, code)


def blind(seen: Tensor, root: Tensor, uses: int, code: Code) -> Information:
    """Return what items carry whose transmitter sends with the same covariance in all uses.

    Args:
        seen: of :func:`seen_through`.
        root: a root of the covariance Q of what is sent, [T, T], trace(Q) = 1.
        uses: channel uses of an item.
        code: for the variance.
    """
    return _carried(_eigenmodes(seen @ root.to(seen.dtype)), uses, code)


def covariance_roots(seen: Tensor) -> list[Tensor]:
    """Return roots [T, T] of covariances to choose from, by the statistics of the channel alone.

    Directions are the eigenvectors of E[H^H C^-1 H]. Power is spread evenly over the strongest 1,
    2, ..., T of them, of which one is best for outage in i.i.d. Rayleigh fading (Telatar's
    conjecture), or so that the mean information is largest.

    Args:
        seen: of :func:`seen_through`, many items.
    """
    num_tx = seen.shape[-1]
    h = seen.flatten(0, 1).to(torch.complex128)
    if num_tx == 1:
        return [torch.ones(1, 1, dtype=h.dtype, device=h.device)]
    _, axes = torch.linalg.eigh((h.mH @ h).mean(dim=0))
    axes = axes.flip(-1)
    stride = max(len(h) // 2048, 1)
    powers = [_best_powers(h[::stride] @ axes)]
    for count in range(1, num_tx + 1):
        even = torch.zeros_like(powers[0])
        even[:count] = 1 / count
        powers.append(even)
    return [axes * power.sqrt() for power in powers]


def _best_powers(h: Tensor) -> Tensor:
    """Return the powers [T] of fixed directions that carry most on average, as EM finds them."""
    power = torch.full((h.shape[-1],), 1 / h.shape[-1], dtype=torch.float64, device=h.device)
    eye = torch.eye(h.shape[-2], dtype=h.dtype, device=h.device)
    for _ in range(_STEPS):
        inverse = torch.linalg.solve(eye + (h * power) @ h.mH, h)
        slope = (h.conj() * inverse).sum(dim=-2).real.mean(dim=0)
        power = power * slope
        power = power / power.sum()
    return power


def _eigenmodes(seen: Tensor) -> Tensor:
    """Return the SNRs of the parallel channels at unit power, [B, 1 or N, S], double."""
    if 1 in seen.shape[-2:]:
        return seen.abs().double().square().sum(dim=(-2, -1))[..., None]
    return torch.linalg.svdvals(seen).double().square()


def _carried(snr: Tensor, uses: int, code: Code) -> Information:
    repeat = uses / snr.shape[1]
    bits = torch.log1p(snr).sum(dim=(1, 2)) / math.log(2)
    return Information(repeat * bits, repeat * dispersion(snr, code).sum(dim=(1, 2)))
