"""A CT scanner with polychromatic rays, noise and metal."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from channels.checks import check_choice
from semsim.nn.tomography import bridge, projector
from semsim.payloads.ct import (
    WATER_MU,
    WINDOW_MU,
)

REFERENCE_KEV = 70.0
WATER_HU, BONE_HU = 100.0, 1500.0  #: below all water, above all bone (ADN)
SCATTER_COUNTS = 20
ALUMINIUM_CM = 0.25  #: filter in front of the tube

_KEV = (20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 100.0, 120.0)
_TABLES = {
    "water": (0.8098, 0.3756, 0.2683, 0.2269, 0.2059, 0.1929, 0.1837, 0.1707, 0.1614),
    "bone": (4.001, 1.331, 0.6655, 0.4242, 0.3148, 0.2570, 0.2229, 0.1855, 0.1656),
    "Ti": (15.85, 4.972, 2.213, 1.214, 0.7660, 0.5361, 0.4053, 0.2721, 0.2102),
    "Fe": (25.68, 8.178, 3.629, 1.957, 1.205, 0.8164, 0.5952, 0.3717, 0.2693),
    "Cu": (33.80, 10.91, 4.861, 2.613, 1.593, 1.064, 0.7630, 0.4585, 0.3195),
    "Zr": (72.38, 24.86, 11.39, 6.175, 3.744, 2.461, 1.721, 0.9656, 0.6198),
    "Ag": (18.36, 36.68, 17.19, 9.446, 5.766, 3.798, 2.651, 1.469, 0.9240),
    "Au": (78.81, 27.52, 12.98, 7.258, 4.529, 3.054, 2.185, 5.158, 3.252),
}  #: mass attenuation in cm²/g (Elam's tables through xraydb)
_ALUMINIUM = (3.441, 1.128, 0.5685, 0.3681, 0.2778, 0.2307, 0.2018, 0.1704, 0.1524)  # NIST
_K_EDGE_KEV = {"Ag": 25.514, "Au": 80.725}

Material = Literal["Ti", "Fe", "Cu", "Zr", "Ag", "Au"]
DENSITY = {"Ti": 4.5, "Fe": 7.8, "Cu": 8.9, "Zr": 6.5, "Ag": 10.5, "Au": 19.3}  #: g/cm³


def attenuation(material: str, energy_kev: Tensor) -> Tensor:
    """Return the mass attenuation μ/ρ in cm²/g, between 20 and 120 keV.

    Straight lines between the table's points, in logarithms of both; a K-edge lies between two
    points, and each of its sides goes on with the slope of the nearest segment that does not hold
    it (where there is none below, with that above).

    Args:
        material: "water", "bone" or a metal of ``DENSITY``.
        energy_kev: energies, any shape.
    """
    check_choice("material", material, tuple(_TABLES))
    if float(energy_kev.min()) < _KEV[0] or float(energy_kev.max()) > _KEV[-1]:
        raise ValueError(f"energies lie in 20 to 120 keV, got {energy_kev.tolist()}")
    return _interpolate(_TABLES[material], energy_kev, _K_EDGE_KEV.get(material))


def _interpolate(table: Sequence[float], energy_kev: Tensor, edge_kev: float | None) -> Tensor:
    x = torch.tensor(_KEV, dtype=torch.float64).log()
    y = torch.tensor(table, dtype=torch.float64).log()
    at = energy_kev.double().log().contiguous()
    slope = y.diff() / x.diff()
    segment = (torch.searchsorted(x, at) - 1).clamp(0, len(slope) - 1)
    value = y[segment] + slope[segment] * (at - x[segment])
    if edge_kev is not None:
        edge = int(torch.searchsorted(x, math.log(edge_kev))) - 1  # the segment that holds it
        above = y[edge + 1] + slope[edge + 1] * (at - x[edge + 1])
        below = y[edge] + slope[edge - 1 if edge else edge + 1] * (at - x[edge])
        inside = torch.where(at > math.log(edge_kev), above, below)
        value = torch.where(segment == edge, inside, value)
    return value.exp()


@functools.cache
def spectrum() -> tuple[Tensor, Tensor]:
    """Return energies in keV, 20 to 120, and the share of photons at each (inferred).

    S(E) ∝ (120 / E - 1) · exp(-(μ/ρ)_Al(E) · 2.7 · 0.25): bremsstrahlung behind 2.5 mm aluminium.
    """
    energy = torch.arange(20.0, 121.0, dtype=torch.float64)
    behind = (-_interpolate(_ALUMINIUM, energy, None) * 2.7 * ALUMINIUM_CM).exp()
    share = (120 / energy - 1) * behind
    return energy, share / share.sum()


@dataclass(frozen=True)
class Scan:
    """What a scan of N slices gives.

    Args:
        corrupted: slices with metal artefacts, [N, S, S] in [0, 1].
        interpolated: the LI baseline: the metal's trace bridged in each view, [N, S, S].
        clean: the same scan without metal, [N, S, S].
        metal: share of each pixel that is metal, [N, S, S].
        trace: rays that meet metal, [N, V, D].
        sinogram: line integrals with metal after noise and correction, [N, V, D], no unit.
        sinogram_clean: without metal, [N, V, D].
    """

    corrupted: Tensor
    interpolated: Tensor
    clean: Tensor
    metal: Tensor
    trace: Tensor
    sinogram: Tensor
    sinogram_clean: Tensor


@dataclass(frozen=True)
class Scanner:
    """A CT scanner with a 120 kVp tube and parallel rays.

        μ ─► water, bone ─┐
        metal ────────────┴► line integrals ─► Σ_E S(E) exp(-…) ─► photons ─► -log ─► water correction ─► FBP

    Args:
        size: side of the slice in pixels.
        pixel_cm: side of a pixel in cm.
        views: projections over 180°, even.
        photons: photons per ray in air; None leaves the noise and the scatter out.
        polychromatic: False is a tube that sends 70 keV alone.
        partial_volume: whether rays at the metal's edge see a quarter of it (ADN).
    """  # noqa: E501 - the diagram

    size: int = 128
    pixel_cm: float = 0.14
    views: int = 180
    photons: float | None = 2e5
    polychromatic: bool = True
    partial_volume: bool = True

    def __post_init__(self) -> None:
        for name in ("size", "pixel_cm", "views", "photons"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be > 0, got {value}")

    def scan(
        self,
        mu: Tensor,
        metal: Tensor,
        material: Sequence[str],
        generator: torch.Generator | None = None,
    ) -> Scan:
        """Scan slices with and without their metal; both see the same noise where they agree.

        Args:
            mu: attenuation at 70 keV, [N, S, S], in cm⁻¹.
            metal: share of each pixel that is metal, [N, S, S] in [0, 1].
            material: of each slice's metal, N names.
            generator: draws the noise, slice after slice.
        """
        if mu.shape[1:] != (self.size, self.size) or mu.shape != metal.shape:
            raise ValueError(
                f"slices and metal are [N, {self.size}, {self.size}] for size {self.size}, got "
                f"{list(mu.shape)} and {list(metal.shape)}"
            )
        system = projector(self.size, self.views)
        water, bone = decompose(mu)
        rays = system.project(torch.cat([water, bone, metal])) * self.pixel_cm
        water, bone, length = rays.chunk(3)
        noise = None
        if self.photons is not None:
            noise = torch.stack([torch.randn(w.shape, generator=generator) for w in water])
        clean = self._measure([water, bone], ["water", "bone"], noise)
        trace = length > 0
        dense = self._edges(length, trace) if self.partial_volume else length
        with_metal = clean.clone()
        for n, name in enumerate(material):
            hit = trace[n]
            parts = [water[n][hit], bone[n][hit], self._metal(dense[n][hit], name)]
            heard = None if noise is None else noise[n][hit]
            with_metal[n][hit] = self._measure(parts, ["water", "bone", name], heard)
        bridged = bridge(with_metal, trace)
        images = system.fbp(torch.cat([with_metal, bridged, clean])) / self.pixel_cm
        corrupted, interpolated, target = (images / WINDOW_MU).clamp(0, 1).chunk(3)
        return Scan(corrupted, interpolated, target, metal, trace, with_metal, clean)

    @staticmethod
    def _metal(length_cm: Tensor, name: str) -> Tensor:
        at_reference = attenuation(name, torch.tensor([REFERENCE_KEV])).item()
        return length_cm * (DENSITY[name] * at_reference)

    @staticmethod
    def _edges(length: Tensor, trace: Tensor) -> Tensor:
        """Divide the outermost bins of each trace by 4: rays that only graze the metal."""
        inner = -F.max_pool1d(-F.pad(trace.float(), (1, 1)), 3, stride=1)
        return torch.where(trace & (inner == 0), length / 4, length)

    def _measure(
        self, rays: Sequence[Tensor], names: Sequence[str], noise: Tensor | None
    ) -> Tensor:
        """Return corrected line integrals of rays through materials, given at 70 keV."""
        energy, share, coefficients = self._tube()
        factors = torch.stack([_relative(name, energy) for name in names]).float()
        stacked = torch.stack(list(rays), dim=-1)
        passed = (-(stacked @ factors)).exp_() @ share.float()
        if self.photons is not None and noise is not None:
            counts = poisson((self.photons * passed).round() + SCATTER_COUNTS, noise)
            passed = counts.clamp(min=1) / self.photons
        p = -passed.clamp(min=1e-37).log()
        c1, c2, c3 = coefficients
        return p * (c1 + p * (c2 + p * c3))

    def _tube(self) -> tuple[Tensor, Tensor, tuple[float, float, float]]:
        """Return energies in keV, their shares, and the water correction."""
        if self.polychromatic:
            return *spectrum(), water_correction()
        one = torch.ones(1, dtype=torch.float64)
        return REFERENCE_KEV * one, one, (1.0, 0.0, 0.0)


def decompose(mu: Tensor) -> tuple[Tensor, Tensor]:
    """Split attenuation [...] in cm⁻¹ into its water-like and bone-like parts, softly between."""
    low, high = (WATER_MU * (1 + hu / 1000) for hu in (WATER_HU, BONE_HU))
    share = ((mu - low) / (high - low)).clamp(0, 1)
    return mu * (1 - share), mu * share


def poisson(mean: Tensor, normal: Tensor) -> Tensor:
    """Return Poisson counts for standard normal draws: the same draw, the same noise.

    The quantile by Cornish and Fisher, mean + √mean · z + (z² - 1) / 6, rounded; its error stays
    below half a count for the means here, at least 20.
    """
    return (mean + mean.sqrt() * normal + (normal.square() - 1) / 6).round().clamp(min=0)


def _relative(name: str, energy: Tensor) -> Tensor:
    """Return the attenuation at these energies in keV over that at 70 keV."""
    return attenuation(name, energy) / attenuation(name, torch.tensor([REFERENCE_KEV]))


@functools.cache
def water_correction() -> tuple[float, float, float]:
    """Return c of p_mono ≈ c₁p + c₂p² + c₃p³, fitted over 0 to 50 cm of water."""
    energy, share = spectrum()
    mono = torch.linspace(0, 50, 501, dtype=torch.float64) * WATER_MU
    p = -((-mono[:, None] * _relative("water", energy)).exp() @ share).log()
    powers = torch.stack([p, p**2, p**3], dim=1)
    c1, c2, c3 = torch.linalg.lstsq(powers, mono[:, None]).solution[:, 0].tolist()
    return c1, c2, c3
