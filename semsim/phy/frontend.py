"""Front ends: how streams go on transmit antennas and come off receive antennas.

    streams [B, S, N] ──► P ──► x [B, T, N] ──► H ──► y [B, R, N] ──► combine ──► streams, n0

Every combiner is unbiased and reports the noise and interference left per symbol. Precoders keep
trace(P P^H) = 1, so unit-power streams make unit total power.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from channels.base import CSI
from semsim.phy.combining import (
    combine_streams,
    distinct,
    energy,
    inverse_root,
    loaded_inverse,
    no_filter,
    noise_power,
    per_use,
    per_use_product,
    whitened,
    zero_forcing,
)
from semsim.phy.theory import water_filling


class FrontEnd(Protocol):
    """What happens between streams and antennas."""

    def num_streams(self, num_tx: int, num_rx: int) -> int:
        """Return how many streams share a channel use."""
        ...

    def precoder(self, csi_tx: CSI, num_tx: int, num_rx: int) -> Tensor:
        """Return P [B or 1, T, S, 1 or N], complex, trace(P P^H) = 1."""
        ...

    def combine(self, y: Tensor, csi: CSI) -> tuple[Tensor, CSI]:
        """Return streams [B, S, N] and CSI with h None and the noise left, n0 [B, S, N].

        Args:
            y: received symbols, [B, R, N], complex.
            csi: h [B, R, S, 1 or N] seen by the streams (channel times precoder); n0 [B], linear.
        """
        ...


class NoFrontEnd(nn.Module):
    """Leave antennas to the codec: one stream per transmit antenna, y as received."""

    def num_streams(self, num_tx: int, num_rx: int) -> int:
        """Return how many symbols share a channel use."""
        return num_tx

    def precoder(self, csi_tx: CSI, num_tx: int, num_rx: int) -> Tensor:
        """Return P = I / sqrt(T), [1, T, T, 1], complex."""
        return _equal_power(csi_tx, num_tx)

    def combine(self, y: Tensor, csi: CSI) -> tuple[Tensor, CSI]:
        """Return y [B, R, N] and csi untouched."""
        return y, csi


class LMMSE(nn.Module):
    """Separate streams with the least mean squared error, then remove its bias.

        W = (H^H H + n0 I)^-1 H^H,  x_hat_s = (W y)_s / (W H)_ss

    One stream is maximum ratio combining, one antenna at each end is a division.

    Source: Tse, Viswanath, Fundamentals of Wireless Communication (2005), linear receivers.
    """

    def num_streams(self, num_tx: int, num_rx: int) -> int:
        """Return T, one stream per transmit antenna; ValueError where T > R."""
        return _open_loop_streams("lmmse", num_tx, num_rx)

    def precoder(self, csi_tx: CSI, num_tx: int, num_rx: int) -> Tensor:
        """Return P = I / sqrt(T), [1, T, T, 1], complex."""
        return _equal_power(csi_tx, num_tx)

    def combine(self, y: Tensor, csi: CSI) -> tuple[Tensor, CSI]:
        """Return unbiased streams and the noise left in them.

        Args:
            y: received symbols, [B, R, N], complex.
            csi: h [B, R, S, 1 or N] seen by the streams (channel times precoder); n0 [B], linear.

        Returns:
            streams [B, S, N], and CSI with h None and n0 [B, S, N].
        """
        return combine_streams("lmmse", y, csi, loaded_inverse)


class IRC(LMMSE):
    """Suppress interference by its covariance, then do as LMMSE: interference rejection combining.

        W = (H^H C^-1 H + I)^-1 H^H C^-1,  C the covariance of noise and interference

    With R antennas it separates T streams and up to R - T interferers. Where the receiver knows no
    covariance (csi.rx: pilots) it is LMMSE; ``csi.rx: silence`` measures one.

    Source: Winters, Optimum combining in digital mobile radio with cochannel interference (1984).
    """

    def combine(self, y: Tensor, csi: CSI) -> tuple[Tensor, CSI]:
        """Return unbiased streams [B, S, N] and the noise left; arguments as in LMMSE.combine."""
        return combine_streams("irc", *whitened(y, csi), loaded_inverse)


class ZF(nn.Module):
    """Separate streams without any interference left, whatever noise that costs.

        x_hat = (H^H H)^-1 H^H y

    Source: Tse, Viswanath, Fundamentals of Wireless Communication (2005), linear receivers.
    """

    def num_streams(self, num_tx: int, num_rx: int) -> int:
        """Return T, one stream per transmit antenna; ValueError where T > R."""
        return _open_loop_streams("zf", num_tx, num_rx)

    def precoder(self, csi_tx: CSI, num_tx: int, num_rx: int) -> Tensor:
        """Return P = I / sqrt(T), [1, T, T, 1], complex."""
        return _equal_power(csi_tx, num_tx)

    def combine(self, y: Tensor, csi: CSI) -> tuple[Tensor, CSI]:
        """Return unbiased streams [B, S, N] and the noise left; arguments as in LMMSE.combine."""
        return combine_streams("zf", y, csi, zero_forcing)


class SVD(nn.Module):
    """Send along the right singular vectors, so that H becomes parallel channels.

        H = U diag(sigma) V^H,  P = V diag(sqrt(p)),  noise left n0 / (p_i sigma_i^2)

    ``p_i = 1 / S``, or by water-filling over what the transmitter believes. A stream that
    water-filling gives no power arrives as 0 with a noise of 1e6. The receiver is LMMSE for
    H P, which is U^H with perfect CSI and still sound where the transmitter's CSI is not.
    No gradient flows through the choice of P.

    Args:
        water_filling: share power by stream quality instead of equally.
        whiten: take C^(-1/2) H for H, C that of noise and interference, where it is known.

    Source: Telatar, Capacity of multi-antenna Gaussian channels (1999).
    """

    def __init__(self, water_filling: bool = False, *, whiten: bool = False) -> None:
        super().__init__()
        self.water_filling = water_filling
        self.whiten = whiten

    def extra_repr(self) -> str:
        """Show the options."""
        return f"water_filling={self.water_filling}, whiten={self.whiten}"

    def num_streams(self, num_tx: int, num_rx: int) -> int:
        """Return min(T, R), the rank of the channel."""
        return min(num_tx, num_rx)

    def precoder(self, csi_tx: CSI, num_tx: int, num_rx: int) -> Tensor:
        """Return P [B, T, S, 1 or N], complex, best stream first; csi_tx.h is [B, R, T, 1 or N]."""
        known = _known_at_transmitter("svd", csi_tx).detach()
        if num_tx == 1:
            return _equal_power(csi_tx, 1)
        if self.whiten and csi_tx.covariance is not None:
            known = per_use_product(inverse_root(known, csi_tx.covariance), known)
            csi_tx = CSI(known, torch.ones_like(csi_tx.n0))
        h, n0, index = distinct(known, csi_tx.n0)
        _, sigma, vh = torch.linalg.svd(h, full_matrices=False)
        share = torch.full_like(sigma, 1 / sigma.shape[-1])
        if self.water_filling:
            noise = noise_power(h, n0)[..., None].to(sigma.dtype)
            share = water_filling(sigma.square() / noise)
        return per_use(vh.mH * share.sqrt().unsqueeze(-2), index)

    def combine(self, y: Tensor, csi: CSI) -> tuple[Tensor, CSI]:
        """Return unbiased streams [B, S, N] and the noise left; arguments as in LMMSE.combine."""
        if self.whiten:
            y, csi = whitened(y, csi)
        return combine_streams("svd", y, csi, loaded_inverse)


class RZF(nn.Module):
    """Separate streams at the transmitter: receive antenna r gets stream r, and only scales it.

        P = c H^H (H H^H + R n0 I)^-1,  x_hat_r = y_r / (H P)_rr

    Source: Peel, Hochwald, Swindlehurst, A vector-perturbation technique for near-capacity
    multiantenna multiuser communication, part I (2005).
    """

    def num_streams(self, num_tx: int, num_rx: int) -> int:
        """Return R, one stream per receive antenna; ValueError where R > T."""
        if num_rx > num_tx:
            raise ValueError(
                "frontend rzf sends one stream to each receive antenna and needs num_tx >= num_rx, "
                f"got num_tx={num_tx}, num_rx={num_rx}; use svd or lmmse"
            )
        return num_rx

    def precoder(self, csi_tx: CSI, num_tx: int, num_rx: int) -> Tensor:
        """Return P [B, T, R, 1 or N], complex; csi_tx.h is [B, R, T, 1 or N]."""
        h, n0, index = distinct(_known_at_transmitter("rzf", csi_tx), csi_tx.n0)
        p = loaded_inverse(h.mH, num_rx * n0).mH  # (H H^H + R n0 I)^-1 H, conjugated
        power = energy(p).sum(dim=(-2, -1), keepdim=True)
        even = torch.eye(num_tx, num_rx, dtype=p.dtype, device=p.device) / num_rx**0.5
        dead = power <= torch.finfo(power.dtype).tiny
        return per_use(torch.where(dead, even, p * torch.where(dead, 1, power).rsqrt()), index)

    def combine(self, y: Tensor, csi: CSI) -> tuple[Tensor, CSI]:
        """Return unbiased streams [B, S, N] and the noise left; arguments as in LMMSE.combine."""
        return combine_streams("rzf", y, csi, no_filter)


def _equal_power(csi_tx: CSI, num_tx: int) -> Tensor:
    dtype = torch.complex128 if csi_tx.n0.dtype == torch.float64 else torch.complex64
    return (torch.eye(num_tx, dtype=dtype, device=csi_tx.n0.device) / num_tx**0.5)[None, ..., None]


def _open_loop_streams(kind: str, num_tx: int, num_rx: int) -> int:
    if num_tx > num_rx:
        raise ValueError(
            f"frontend {kind} separates at most num_rx streams and sends num_tx of them, got "
            f"num_tx={num_tx}, num_rx={num_rx}; use svd or rzf with csi.tx perfect or feedback"
        )
    return num_tx


def _known_at_transmitter(kind: str, csi_tx: CSI) -> Tensor:
    if csi_tx.h is None:
        raise ValueError(
            f"frontend {kind} needs the channel at the transmitter; set csi.tx to perfect or "
            "feedback"
        )
    return csi_tx.h
