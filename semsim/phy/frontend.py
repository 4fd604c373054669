"""Front ends: how streams go on transmit antennas and come off receive antennas.

    streams [B, S, N] ──► P ──► x [B, T, N] ──► H ──► y [B, R, N] ──► combine ──► streams, n0

Every combiner is unbiased and reports the noise and interference left per symbol. Precoders keep
trace(P P^H) = 1, so unit-power streams make unit total power.

n0 may be 0. What rounding leaves of a signal counts as noise, (4 eps)^2 sum |h|^2 per antenna with
eps of the type of h; it decides which streams can be told apart where n0 is too small to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from channels.base import CSI
from semsim.phy.theory import water_filling

#: a stream that would arrive with more noise than this, or than so many n0, is given up: it arrives
#: as 0, with that noise reported
MAX_NOISE = 1e6
_TINY = 1e-30  # an n0 of 0 in a division


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
        return _combine("lmmse", y, csi, _loaded_inverse)


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
        return _combine("zf", y, csi, _zero_forcing)


class SVD(nn.Module):
    """Send along the right singular vectors, so that H becomes parallel channels.

        H = U diag(sigma) V^H,  P = V diag(sqrt(p)),  noise left n0 / (p_i sigma_i^2)

    ``p_i = 1 / S``, or by water-filling over what the transmitter believes. A stream that
    water-filling gives no power arrives as 0 with a noise of 1e6. The receiver is LMMSE for
    H P, which is U^H with perfect CSI and still sound where the transmitter's CSI is not.
    No gradient flows through the choice of P.

    Args:
        water_filling: share power by stream quality instead of equally.

    Source: Telatar, Capacity of multi-antenna Gaussian channels (1999).
    """

    def __init__(self, water_filling: bool = False) -> None:
        super().__init__()
        self.water_filling = water_filling

    def extra_repr(self) -> str:
        """Show the one option."""
        return f"water_filling={self.water_filling}"

    def num_streams(self, num_tx: int, num_rx: int) -> int:
        """Return min(T, R), the rank of the channel."""
        return min(num_tx, num_rx)

    def precoder(self, csi_tx: CSI, num_tx: int, num_rx: int) -> Tensor:
        """Return P [B, T, S, 1 or N], complex, best stream first; csi_tx.h is [B, R, T, 1 or N]."""
        known = _known_at_transmitter("svd", csi_tx).detach()
        if num_tx == 1:
            return _equal_power(csi_tx, 1)
        h, index = _distinct(known)
        _, sigma, vh = torch.linalg.svd(h, full_matrices=False)
        share = torch.full_like(sigma, 1 / sigma.shape[-1])
        if self.water_filling:
            share = water_filling(sigma.square() / _noise(h, csi_tx.n0)[..., None].to(sigma.dtype))
        return _per_use(vh.mH * share.sqrt().unsqueeze(-2), index)

    def combine(self, y: Tensor, csi: CSI) -> tuple[Tensor, CSI]:
        """Return unbiased streams [B, S, N] and the noise left; arguments as in LMMSE.combine."""
        return _combine("svd", y, csi, _loaded_inverse)


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
        h, index = _distinct(_known_at_transmitter("rzf", csi_tx))
        p = _loaded_inverse(
            h.mH, num_rx * csi_tx.n0[:, None]
        ).mH  # (H H^H + R n0 I)^-1 H, conjugated
        power = _energy(p).sum(dim=(-2, -1), keepdim=True)
        even = torch.eye(num_tx, num_rx, dtype=p.dtype, device=p.device) / num_rx**0.5
        dead = power <= torch.finfo(power.dtype).tiny
        return _per_use(torch.where(dead, even, p * torch.where(dead, 1, power).rsqrt()), index)

    def combine(self, y: Tensor, csi: CSI) -> tuple[Tensor, CSI]:
        """Return unbiased streams [B, S, N] and the noise left; arguments as in LMMSE.combine."""
        return _combine("rzf", y, csi, _no_filter)


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


def _distinct(h: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return h [B, R, T, N] as matrices [B, n, R, T], one per coherence block, and use -> block."""
    index = None
    if h.shape[-1] > 1:
        starts = (h[..., 1:] != h[..., :-1]).flatten(0, 2).any(dim=0)
        starts = torch.cat([starts.new_ones(1), starts])
        if not starts.all():
            index = starts.cumsum(0) - 1
            h = h[..., starts]
    return h.permute(0, 3, 1, 2), index


def _per_use(matrices: Tensor, index: Tensor | None) -> Tensor:
    """Undo _distinct: [B, n, T, S] to [B, T, S, N]."""
    matrices = matrices.permute(0, 2, 3, 1)
    return matrices if index is None else matrices[..., index]


def _noise(h: Tensor, n0: Tensor) -> Tensor:
    """Return the noise per receive antenna, rounding included, [B, n], for h [B, n, R, S]."""
    rounding = (4 * torch.finfo(h.dtype).eps) ** 2
    return (n0[:, None] + rounding * _energy(h).sum(dim=(-2, -1))).clamp_min(_TINY)


def _loaded_inverse(h: Tensor, load: Tensor) -> Tensor:
    """Return (H^H H + load I)^-1 H^H for h [B, n, R, S] and load [B, 1 or n]."""
    wide = h.to(torch.complex128)  # squares the condition number, which complex64 cannot carry
    gram = wide.mH @ wide
    trace = gram.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    diagonal = load.to(torch.float64) + 1e-13 * trace + 1e-30  # solvable if H is singular
    eye = torch.eye(h.shape[-1], dtype=wide.dtype, device=h.device)
    return torch.linalg.solve(gram + diagonal[..., None, None] * eye, wide.mH).to(h.dtype)


def _zero_forcing(h: Tensor, noise: Tensor) -> Tensor:
    """Return H^+, [B, n, S, R]; what a singular H lets through is counted as crosstalk."""
    return _loaded_inverse(h, torch.zeros_like(noise))


def _no_filter(h: Tensor, noise: Tensor) -> Tensor:
    """Return the identity, [B, n, R, R]: the transmitter has separated the streams."""
    return torch.eye(h.shape[-1], dtype=h.dtype, device=h.device).expand_as(h)


def _combine(
    kind: str, y: Tensor, csi: CSI, filter_for: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, CSI]:
    if csi.h is None:
        raise ValueError(
            f"frontend {kind} needs the channel at the receiver; set csi.rx to perfect or pilots, "
            "or use frontend none"
        )
    if csi.h.shape[2] == 1:
        return _combine_one(y, csi.h, csi.n0)
    h, index = _distinct(csi.h)
    noise = _noise(h, csi.n0)
    w = filter_for(h, noise)
    scale, left = _unbias(w, h, noise)
    w = _per_use(w * scale[..., None], index)  # [B, S, R, 1 or N]
    left = left.permute(0, 2, 1) if index is None else left.permute(0, 2, 1)[..., index]
    streams = w[..., 0] @ y if w.shape[-1] == 1 else (w * y[:, None]).sum(dim=2)
    return streams, CSI(None, left.expand(streams.shape))


def _unbias(w: Tensor, h: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return what makes W y unbiased, [B, n, S], and the noise and crosstalk then left in it."""
    through = w @ h
    gain = through.diagonal(dim1=-2, dim2=-1)
    crosstalk = _energy(through - torch.diag_embed(gain)).sum(-1)
    unwanted = crosstalk + noise[..., None] * _energy(w).sum(-1)
    limit = MAX_NOISE * noise[..., None].clamp_min(1)
    dead = unwanted >= limit * _energy(gain)
    scale = torch.where(dead, 0, 1 / torch.where(dead, 1, gain))
    return scale, torch.where(dead, limit, unwanted * _energy(scale))


def _combine_one(y: Tensor, h: Tensor, n0: Tensor) -> tuple[Tensor, CSI]:
    """Combine antennas for a single stream by their SNR: the same filter for every front end."""
    noise = _noise(h.permute(0, 3, 1, 2), n0)[:, None]  # [B, 1, 1 or N]
    h = h[:, :, 0]  # [B, R, 1 or N]
    energy = _energy(h).sum(dim=1, keepdim=True)
    limit = MAX_NOISE * noise.clamp_min(1)
    dead = noise >= limit * energy
    energy = torch.where(dead, 1, energy)
    weight = torch.where(dead, 0, h.conj() * (1 / energy))
    streams = weight * y if h.shape[1] == 1 else (weight * y).sum(dim=1, keepdim=True)
    return streams, CSI(None, torch.where(dead, limit, noise / energy).expand(streams.shape))


def _energy(z: Tensor) -> Tensor:
    """Return |z|^2 without the root that z.abs() would take."""
    return z.real.square() + z.imag.square()
