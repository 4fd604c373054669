"""Doppler spectra: how the power of scattered waves lies over their frequency shifts.

A spectrum is a density over shift / f_D, f_D the largest shift of the moving user: its Fourier
transform is how the gain remembers, rho(t) = E[g(s + t) g*(s)].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

Name = Literal["clarke", "flat", "gaussian"]
Written = Name | list[tuple[float, float]]  #: a name, or pairs (shift / f_D, density)

_EDGE = 1e-12  # of the power of a spectrum without end


class Spectrum(Protocol):
    """A density of power over shift / f_D."""

    mean_square: float  #: of shift / f_D

    def shifts(self, share: Tensor) -> Tensor:
        """Return shift / f_D of waves at such shares of the power, from 0 to below 1."""
        ...

    def correlation(self, lag_s: Tensor, doppler_hz: Tensor | float) -> Tensor:
        """Return rho, real, or complex128 where the spectrum has no symmetry."""
        ...


class Clarke:
    """Waves from a ring around the user: the U of Jakes, J0(2 pi f_D t).

    Source: Clarke, A statistical theory of mobile-radio reception (1968).
    """

    mean_square = 1 / 2

    def shifts(self, share: Tensor) -> Tensor:
        """Return the cosine of angles around the user; both halves of the ring in turn."""
        return torch.cos(2 * math.pi * share)

    def correlation(self, lag_s: Tensor, doppler_hz: Tensor | float) -> Tensor:
        """Return J0(2 pi f_D t)."""
        return torch.special.bessel_j0(2 * math.pi * doppler_hz * lag_s)


class Flat:
    """Waves from a sphere around the user: all shifts alike, sin(2 pi f_D t) / (2 pi f_D t)."""

    mean_square = 1 / 3

    def shifts(self, share: Tensor) -> Tensor:
        """Return shifts from -1 to 1."""
        return 2 * share - 1

    def correlation(self, lag_s: Tensor, doppler_hz: Tensor | float) -> Tensor:
        """Return sinc(2 f_D t)."""
        return torch.sinc(2 * doppler_hz * lag_s)


class Gaussian:
    """A bell as wide as Clarke's spectrum, with standard deviation f_D / sqrt(2): long echoes.

    rho(t) = exp(-(pi f_D t)^2); 16 % of the power lies beyond f_D, as of scatterers that move.
    """

    mean_square = 1 / 2

    def shifts(self, share: Tensor) -> Tensor:
        """Return normal quantiles; the outermost 1e-12 of the power are left out."""
        return torch.special.ndtri(share.clamp(_EDGE, 1 - _EDGE)) / math.sqrt(2)

    def correlation(self, lag_s: Tensor, doppler_hz: Tensor | float) -> Tensor:
        """Return exp(-(pi f_D t)^2)."""
        return torch.exp(-((math.pi * doppler_hz * lag_s) ** 2))


class Tabulated:
    """A measured spectrum, straight between the pairs (shift / f_D, density) and 0 beyond.

    Args:
        pairs: shifts ascending; densities of 0 or more in any unit, scaled to power 1.
    """

    def __init__(self, pairs: Sequence[tuple[float, float]]) -> None:
        self.shift, density = _checked(pairs).T
        width = self.shift.diff()
        below = torch.cat(
            [width.new_zeros(1), (width * (density[1:] + density[:-1]) / 2).cumsum(0)]
        )
        self.below, self.density = below / below[-1], density / below[-1]
        self.slope = self.density.diff() / width
        half, middle = width / 2, self.shift[:-1] + width / 2
        mean = (self.density[1:] + self.density[:-1]) / 2
        square = mean * (middle**2 * width + 2 / 3 * half**3)
        self.mean_square = float((square + self.slope * 4 / 3 * middle * half**3).sum())

    def shifts(self, share: Tensor) -> Tensor:
        """Return quantiles: of a straight density, the root of a square."""
        below, start, slope = (v.to(share.device) for v in (self.below, self.density, self.slope))
        piece = torch.searchsorted(below, share, right=True).clamp(1, len(slope)) - 1
        rest = (share - below[piece]).clamp(min=0)
        root = (start[piece].square() + 2 * slope[piece] * rest).clamp(min=0).sqrt()
        further = 2 * rest / (start[piece] + root).clamp(min=_EDGE)
        return self.shift.to(share.device)[piece] + further

    def correlation(self, lag_s: Tensor, doppler_hz: Tensor | float) -> Tensor:
        """Return the sum over pieces of the transform of a straight line, complex128."""
        turns = (2 * math.pi * lag_s * doppler_hz).double()[..., None]
        shift, density = self.shift.to(turns.device), self.density.to(turns.device)
        half, mean = shift.diff() / 2, (density[1:] + density[:-1]) / 2
        z = turns * half
        odd = torch.where(z.abs() < 1e-4, z / 3, (z.sin() / z - z.cos()) / z)  # spherical Bessel
        even = mean * torch.sinc(z / math.pi)
        piece = torch.complex(even, self.slope.to(turns.device) * half * odd) * 2 * half
        return (piece * torch.exp(1j * turns * (shift[:-1] + half))).sum(dim=-1)


def spectrum_of(written: Written) -> Spectrum:
    """Return the spectrum that a scenario names or gives; ValueError for another."""
    if not isinstance(written, str):
        return Tabulated(written)
    if written not in _NAMED:
        raise ValueError(
            f"spectrum is one of {', '.join(_NAMED)}, or pairs [shift / f_D, density], got "
            f"{written!r}"
        )
    return _NAMED[written]


_NAMED: dict[str, Spectrum] = {"clarke": Clarke(), "flat": Flat(), "gaussian": Gaussian()}


def _checked(pairs: Sequence[tuple[float, float]]) -> Tensor:
    try:
        table = torch.tensor([[float(v) for v in pair] for pair in pairs], dtype=torch.float64)
    except (TypeError, ValueError):
        table = torch.zeros(0)
    right = table.dim() == 2 and table.shape[1] == 2 and len(table) > 1
    if not right or not table.isfinite().all() or (table[:, 0].diff() <= 0).any():
        raise ValueError(
            "spectrum holds two or more pairs of finite numbers, shift / f_D and density, with "
            f"ascending shifts, got {pairs!r}; a flat one is [[-1, 1], [1, 1]]"
        )
    if (table[:, 1] < 0).any() or not table[:, 1].any():
        raise ValueError(
            f"densities of a spectrum are 0 or more, and some above 0, got {pairs!r}; write them "
            "linear, not in dB"
        )
    return table
