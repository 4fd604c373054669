"""Closed forms that simulations are held against: error rates, capacities, outage, distortion.

``snr_db`` is Es/N0 per receive antenna at total transmit power 1, in dB. Capacities are in bits per
channel use, probabilities and ratios linear.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from channels.units import db_to_linear
from semsim.phy.blocklength import normal_approximation as normal_approximation

Array = NDArray[np.float64]
Waves = NDArray[np.complex128]


def q_function(x: float) -> float:
    """Return the probability that a standard normal variable exceeds x."""
    return 0.5 * math.erfc(x / math.sqrt(2))


def qam_ber_awgn(snr_db: float, order: int = 4) -> float:
    """Return the bit error rate of Gray-mapped square QAM in white Gaussian noise, exactly.

    Args:
        snr_db: Es/N0, in dB.
        order: points of the constellation: 4 (QPSK), 16, 64, 256, ...

    Source: Cho, Yoon, On the general BER expression of one- and two-dimensional amplitude
        modulations (2002).
    """
    snr = db_to_linear(snr_db)
    return sum(weight * q_function(math.sqrt(a * snr)) for weight, a in _qam_terms(order))


def qam_ber_rayleigh(snr_db: float, order: int = 4) -> float:
    """Return the bit error rate of Gray QAM, averaged over Rayleigh fading known to the receiver.

        E Q(sqrt(a g)) = (1 - sqrt(a snr / (2 + a snr))) / 2

    Args:
        snr_db: mean Es/N0, in dB.
        order: points of the constellation.

    Source: Proakis, Salehi, Digital Communications (2008), fading channels.
    """
    snr = db_to_linear(snr_db)
    return sum(
        weight * 0.5 * (1 - math.sqrt(a * snr / (2 + a * snr))) for weight, a in _qam_terms(order)
    )


def qam_ber_rician(snr_db: float, k_db: float, order: int = 4) -> float:
    """Return the bit error rate of Gray QAM, averaged over Rician fading known to the receiver.

        E Q(sqrt(a g)) = 1/pi int_0^(pi/2) M(a / (2 sin^2 t)) dt
        M(s) = (1 + K) / (1 + K + s snr) exp(-K s snr / (1 + K + s snr))

    Args:
        snr_db: mean Es/N0, in dB.
        k_db: power of the line of sight over the scattered power, in dB; .inf leaves no scattering.
        order: points of the constellation.

    Source: Simon, Alouini, Digital Communication over Fading Channels (2005).
    """
    if k_db == math.inf:
        return qam_ber_awgn(snr_db, order)
    snr, k = db_to_linear(snr_db), db_to_linear(k_db)
    points = 2000  # the midpoint rule converges exponentially: the integrand is smooth and even
    t = (np.arange(points) + 0.5) * (math.pi / 2 / points)
    total = 0.0
    for weight, a in _qam_terms(order):
        faded = a / (2 * np.sin(t) ** 2) * snr
        m = (1 + k) / (1 + k + faded) * np.exp(-k * faded / (1 + k + faded))
        total += weight * float(m.mean()) / 2
    return total


def _qam_terms(order: int) -> list[tuple[float, float]]:
    """Return (weight, a) so that the bit error rate is the sum of weight Q(sqrt(a snr))."""
    side = math.isqrt(order) if isinstance(order, int) and order > 0 else 0
    if side < 2 or side**2 != order or side & (side - 1):
        raise ValueError(f"order of a square QAM is 4, 16, 64, 256, ..., got {order!r}")
    bits = side.bit_length() - 1
    terms = []
    for k in range(1, bits + 1):
        for j in range(side - side // 2**k):
            step = j * 2 ** (k - 1)
            sign = -1 if step // side % 2 else 1
            times = 2 ** (k - 1) - (2 * step + side) // (2 * side)
            terms.append((2 * sign * times / side / bits, (2 * j + 1) ** 2 * 3 / (order - 1)))
    return terms


def awgn_capacity(snr_db: float) -> float:
    """Return log2(1 + snr), in bits per channel use (Shannon 1948)."""
    return math.log2(1 + db_to_linear(snr_db))


def gaussian_distortion(capacity: float, cbr: float, variance: float = 1.0) -> float:
    """Return the least mean squared error of a white Gaussian source behind a channel.

        D = variance 2^(-2 cbr capacity)

    Args:
        capacity: of the channel, in bits per channel use.
        cbr: channel uses per real source value.
        variance: of the source.

    Source: Cover, Thomas, Elements of Information Theory (2006), rate distortion theory.
    """
    return variance * 2.0 ** (-2 * cbr * capacity)


def ergodic_capacity(snr_db: float, num_tx: int = 1, num_rx: int = 1) -> float:
    """Return the mean capacity of i.i.d. Rayleigh fading that only the receiver knows.

        C = E log2 det(I + snr / T H H^H)

    Args:
        snr_db: Es/N0 per receive antenna, in dB.
        num_tx: transmit antennas T, without channel knowledge.
        num_rx: receive antennas R.

    Source: Telatar, Capacity of multi-antenna Gaussian channels (1999), theorem 2.
    """
    gain, basis = _wishart(num_tx, num_rx)
    rate = np.log2(1 + db_to_linear(snr_db) / num_tx * gain)
    return float((basis**2).sum(axis=0) @ rate)


def outage_probability(rate: float, snr_db: float, num_tx: int = 1, num_rx: int = 1) -> float:
    """Return how often block Rayleigh fading carries less than ``rate`` without CSI at the sender.

        P(log2 det(I + snr / T H H^H) < rate)

    For T = R = 1 it is 1 - exp(-(2^rate - 1) / snr); with one antenna at an end a gamma
    distribution; else the characteristic function of the rate is inverted numerically, to about
    1e-6.

    Args:
        rate: in bits per channel use.
        snr_db: Es/N0 per receive antenna, in dB.
        num_tx: transmit antennas T.
        num_rx: receive antennas R.

    Source: Wang, Giannakis, Outage mutual information of space-time MIMO channels (2004).
    """
    if rate <= 0:
        return 0.0
    snr = db_to_linear(snr_db) / num_tx
    if min(num_tx, num_rx) == 1:
        diversity = torch.tensor(float(num_tx * num_rx), dtype=torch.float64)
        needed = torch.tensor((2.0**rate - 1) / snr, dtype=torch.float64)
        return float(torch.special.gammainc(diversity, needed))
    mean, frequency, phi = _rate_characteristic(snr, num_tx, num_rx)
    rate *= math.log(2)  # nats from here
    if abs(rate - mean) * frequency[0] > 0.75:  # ten deviations out; at twenty the sum repeats
        return float(rate > mean)
    waves = (phi * np.exp(-1j * frequency * rate)).imag / frequency
    below = 0.5 - 2 * frequency[0] / math.pi * float(waves.sum())  # Gil-Pelaez, midpoint rule
    return min(max(below, 0.0), 1.0)


def outage_capacity(probability: float, snr_db: float, num_tx: int = 1, num_rx: int = 1) -> float:
    """Return the rate that block Rayleigh fading fails to carry with the given probability.

    Args:
        probability: of outage, above 0 and below 1.
        snr_db: Es/N0 per receive antenna, in dB.
        num_tx: transmit antennas T.
        num_rx: receive antennas R.
    """
    if not 0 < probability < 1:
        raise ValueError(f"probability lies between 0 and 1, got {probability}; 10 % is 0.1")
    low, high = 0.0, 1.0
    while outage_probability(high, snr_db, num_tx, num_rx) < probability:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        if outage_probability(middle, snr_db, num_tx, num_rx) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _wishart(num_tx: int, num_rx: int) -> tuple[Array, Array]:
    """Return eigenvalues [G] of H H^H on a grid, and their m orthonormal functions [m, G].

    The functions are Laguerre polynomials times the root of their weight and of the grid's step, so
    sums over the grid are integrals; their squares add up to the density of all eigenvalues.
    """
    if num_tx < 1 or num_rx < 1:
        raise ValueError(f"a link has antennas at both ends, got {num_tx} and {num_rx}")
    few, a = min(num_tx, num_rx), abs(num_tx - num_rx)
    u, step = np.linspace(-35, math.log(60 + 20 * (few + a)), 8000, retstep=True)
    gain = np.exp(u)  # the trapezoidal rule in log(gain) converges exponentially
    laguerre = [np.ones_like(gain), 1 + a - gain]
    for k in range(1, few - 1):
        following = (2 * k + 1 + a - gain) * laguerre[k] - (k + a) * laguerre[k - 1]
        laguerre.append(following / (k + 1))
    log_weight = (a + 1) * u - gain + math.log(step)
    norms = [math.lgamma(k + a + 1) - math.lgamma(k + 1) for k in range(few)]
    roots = [np.exp((log_weight - norm) / 2) for norm in norms]
    return gain, np.stack([p * root for p, root in zip(laguerre, roots, strict=False)])


@lru_cache(maxsize=64)
def _rate_characteristic(snr: float, num_tx: int, num_rx: int) -> tuple[float, Array, Waves]:
    """Return the mean rate in nats, frequencies [F] in 1/nat, and E exp(j frequency rate), [F].

    The latter is the determinant of the matrix <p_i| (1 + snr gain)^(j frequency) |p_k>.
    """
    gain, basis = _wishart(num_tx, num_rx)
    rate = np.log1p(snr * gain)
    products = (basis[:, None] * basis).reshape(-1, gain.size)
    density = (basis**2).sum(axis=0)
    variance = density @ rate**2 - ((products @ rate) ** 2).sum()
    frequency = (np.arange(300, dtype=np.float64) + 0.5) * float(0.15 / math.sqrt(variance))
    waves = products @ np.exp(1j * rate[:, None] * frequency)
    phi = np.linalg.det(waves.T.reshape(-1, len(basis), len(basis)))
    return float(density @ rate), frequency, np.asarray(phi, dtype=np.complex128)


def mimo_capacity(h: Tensor, n0: Tensor, *, csi_tx: bool = False) -> Tensor:
    """Return the capacity of given channels, in bits per channel use.

        log2 det(I + H H^H / (T n0)), or with water-filling sum_i log2(1 + p_i sigma_i^2 / n0)

    Args:
        h: [B, R, T, 1 or N], complex.
        n0: noise power per receive antenna, [B], linear.
        csi_tx: the transmitter knows h and fills water; else it spreads its power evenly.

    Returns:
        [B, 1 or N].

    Source: Telatar, Capacity of multi-antenna Gaussian channels (1999).
    """
    gains = torch.linalg.svdvals(h.permute(0, 3, 1, 2)).square() / n0[:, None, None]
    share = water_filling(gains) if csi_tx else 1 / h.shape[2]
    return torch.log2(1 + share * gains).sum(dim=-1)


def water_filling(gains: Tensor, power: float = 1.0) -> Tensor:
    """Share power over parallel channels so that their capacity is largest.

        p_i = max(0, mu - 1 / g_i),  sum p_i = power

    Args:
        gains: SNR of each channel at unit power (sigma_i^2 / n0), [..., S], linear.
        power: what is to be shared, linear.

    Returns:
        p, [..., S]; zero where a channel is too weak.

    Source: Cover, Thomas, Elements of Information Theory (2006), parallel Gaussian channels.
    """
    floor, order = (1 / gains.clamp_min(1e-30)).sort(dim=-1)
    floor = floor - floor[..., :1]  # only differences matter; this keeps their digits
    count = torch.arange(1, gains.shape[-1] + 1, device=gains.device, dtype=gains.dtype)
    level = (power + floor.cumsum(dim=-1)) / count  # mu if the best 1, 2, ... channels are used
    used = (level > floor).sum(dim=-1, keepdim=True)
    share = torch.where(count <= used, level.gather(-1, used - 1) - floor, 0)
    return torch.zeros_like(gains).scatter(-1, order, share)
