"""Linear algebra of the front ends: filters, whitening, and what noise a filter leaves.

What rounding leaves of a signal counts as noise, (4 eps)^2 sum |h|^2 per antenna with eps of the
type of h, so that n0 may be 0: it decides which streams can be told apart where n0 is too small to.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from channels.base import CSI

#: a stream that would arrive with more noise than this, or than so many n0, is given up: it arrives
#: as 0, with that noise reported
MAX_NOISE = 1e6
_TINY = 1e-30  # an n0 of 0 in a division


def distinct(h: Tensor, n0: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return what differs among uses, once.

    Args:
        h: [B, R, T, 1 or N].
        n0: [B], or [B, 1, N] where it differs among uses.

    Returns:
        matrices [B, n, R, T], one per stretch of equal uses, n0 [B, 1 or n], and use -> stretch.
    """
    n0, index = n0.reshape(len(n0), -1), None
    if n0.shape[-1] > 1:
        h = h.expand(*h.shape[:-1], n0.shape[-1])
    if h.shape[-1] > 1:
        starts = (h[..., 1:] != h[..., :-1]).flatten(0, 2).any(dim=0)
        if n0.shape[-1] > 1:
            starts = starts | (n0[:, 1:] != n0[:, :-1]).any(dim=0)
        starts = torch.cat([starts.new_ones(1), starts])
        if not starts.all():
            index = starts.cumsum(0) - 1
            h = h[..., starts]
            n0 = n0[:, starts] if n0.shape[-1] > 1 else n0
    return h.permute(0, 3, 1, 2), n0, index


def per_use(matrices: Tensor, index: Tensor | None) -> Tensor:
    """Undo distinct: [B, n, T, S] to [B, T, S, N]."""
    matrices = matrices.permute(0, 2, 3, 1)
    return matrices if index is None else matrices[..., index]


def noise_power(h: Tensor, n0: Tensor) -> Tensor:
    """Return the noise per receive antenna, rounding included, [B, n].

    Args:
        h: [B, n, R, S].
        n0: [B, 1 or n].
    """
    rounding = (4 * torch.finfo(h.dtype).eps) ** 2
    return (n0 + rounding * energy(h).sum(dim=(-2, -1))).clamp_min(_TINY)


def whitened(y: Tensor, csi: CSI) -> tuple[Tensor, CSI]:
    """Return y and h as seen where noise and interference are white and of power 1."""
    if csi.covariance is None or csi.h is None:
        return y, csi
    root = inverse_root(csi.h, csi.covariance)
    white = CSI(per_use_product(root, csi.h), torch.ones_like(csi.n0))
    return per_use_product(root, y[:, :, None])[:, :, 0], white


def inverse_root(h: Tensor, covariance: Tensor) -> Tensor:
    """Return L^-1 of the covariance L L^H, [B, R, R, 1 or N]; rounding keeps it invertible."""
    wide = covariance.permute(0, 3, 1, 2)
    power = wide.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    power = power + energy(h).sum(dim=(1, 2)).amax(dim=-1, keepdim=True)
    rounding = (4 * torch.finfo(h.dtype).eps) ** 2 * power + _TINY
    eye = torch.eye(wide.shape[-1], dtype=wide.dtype, device=wide.device)
    lower = torch.linalg.cholesky(wide + rounding[..., None, None] * eye)
    root = torch.linalg.solve_triangular(lower, eye.expand_as(lower), upper=False)
    return root.permute(0, 2, 3, 1)


def per_use_product(root: Tensor, h: Tensor) -> Tensor:
    """Return root [B, R, R, 1 or N] times h [B, R, S, 1 or N], in the type of h."""
    if root.shape[-1] == 1:
        return torch.einsum("brq,bqsn->brsn", root[..., 0].to(h.dtype), h)
    return torch.einsum("brqn,bqsn->brsn", root.to(h.dtype), h.expand(-1, -1, -1, root.shape[-1]))


def loaded_inverse(h: Tensor, load: Tensor) -> Tensor:
    """Return (H^H H + load I)^-1 H^H for h [B, n, R, S] and load [B, 1 or n]."""
    wide = h.to(torch.complex128)  # squares the condition number, which complex64 cannot carry
    gram = wide.mH @ wide
    trace = gram.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    diagonal = load.to(torch.float64) + 1e-13 * trace + 1e-30  # solvable if H is singular
    eye = torch.eye(h.shape[-1], dtype=wide.dtype, device=h.device)
    return torch.linalg.solve(gram + diagonal[..., None, None] * eye, wide.mH).to(h.dtype)


def zero_forcing(h: Tensor, noise: Tensor) -> Tensor:
    """Return H^+, [B, n, S, R]; what a singular H lets through is counted as crosstalk."""
    return loaded_inverse(h, torch.zeros_like(noise))


def no_filter(h: Tensor, noise: Tensor) -> Tensor:
    """Return the identity, [B, n, R, R]: the transmitter has separated the streams."""
    return torch.eye(h.shape[-1], dtype=h.dtype, device=h.device).expand_as(h)


def combine_streams(
    kind: str, y: Tensor, csi: CSI, filter_for: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, CSI]:
    if csi.h is None:
        raise ValueError(
            f"frontend {kind} needs the channel at the receiver; set csi.rx to perfect or pilots, "
            "or use frontend none"
        )
    if csi.h.shape[2] == 1:
        return _combine_one(y, csi.h, csi.n0)
    h, n0, index = distinct(csi.h, csi.n0)
    noise = noise_power(h, n0)
    w = filter_for(h, noise)
    scale, left = _unbias(w, h, noise)
    w = per_use(w * scale[..., None], index)  # [B, S, R, 1 or N]
    left = left.permute(0, 2, 1) if index is None else left.permute(0, 2, 1)[..., index]
    streams = w[..., 0] @ y if w.shape[-1] == 1 else (w * y[:, None]).sum(dim=2)
    return streams, CSI(None, left.expand(streams.shape))


def _unbias(w: Tensor, h: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return what makes W y unbiased, [B, n, S], and the noise and crosstalk then left in it."""
    through = w @ h
    gain = through.diagonal(dim1=-2, dim2=-1)
    crosstalk = energy(through - torch.diag_embed(gain)).sum(-1)
    unwanted = crosstalk + noise[..., None] * energy(w).sum(-1)
    limit = MAX_NOISE * noise[..., None].clamp_min(1)
    dead = unwanted >= limit * energy(gain)
    scale = torch.where(dead, 0, 1 / torch.where(dead, 1, gain))
    return scale, torch.where(dead, limit, unwanted * energy(scale))


def _combine_one(y: Tensor, h: Tensor, n0: Tensor) -> tuple[Tensor, CSI]:
    """Combine antennas for a single stream by their SNR: the same filter for every front end."""
    noise = noise_power(h.permute(0, 3, 1, 2), n0.reshape(len(h), -1))[:, None]  # [B, 1, 1 or N]
    h = h[:, :, 0]  # [B, R, 1 or N]
    gain = energy(h).sum(dim=1, keepdim=True)
    limit = MAX_NOISE * noise.clamp_min(1)
    dead = noise >= limit * gain
    gain = torch.where(dead, 1, gain)
    weight = torch.where(dead, 0, h.conj() * (1 / gain))
    streams = weight * y if h.shape[1] == 1 else (weight * y).sum(dim=1, keepdim=True)
    return streams, CSI(None, torch.where(dead, limit, noise / gain).expand(streams.shape))


def energy(z: Tensor) -> Tensor:
    """Return |z|^2 without the root that z.abs() would take."""
    return z.real.square() + z.imag.square()
