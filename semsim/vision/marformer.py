"""MARformer: metal artefact reduction of dental CT slices, with the scanner that makes the artefacts.

    phantom or CT slice ─┬─► polychromatic scan with metal ─► sinogram ─► FBP ─► corrupted slice ─► MARformer
                         └─► the same scan without metal ───────────────► FBP ─► clean slice (target)

Slices are attenuation μ divided by 0.5 cm⁻¹ and clipped to [0, 1].

Found: the task, the image domain, the U-shape with three levels and a bottleneck, a residual
output, DRSA (attention between channels of a reduced tensor) before P2FFN (a feed-forward part with
a large kernel). Adjacent: re-sampling by pixel shuffle and the form of the attention (Restormer);
the physics of the simulator and its settings (ADN). Inferred: widths, depths, kernel sizes, the
phantom, the training. The paper's own figures, 25.72 dB before and 43.11 dB after (size L), belong to
its own data and are not repeated here.

Source: Shi, Xu, Shen, MARformer: An Efficient Metal Artifact Reduction Transformer for Dental CBCT
Images, arXiv 2311.09590.
"""  # noqa: E501 - the diagram

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semsim.nn.conv import start_at_zero
from semsim.nn.denoise import PositionNorm
from semsim.nn.fast_conv import Depthwise, Pointwise
from semsim.nn.tomography import bridge, projector
from semsim.payloads.ct import (
    WATER_MU,
    WINDOW_MU,
    HounsfieldSlices,
    SlicePairs,
    open_slices,
    to_mu,
)
from semsim.payloads.images import check_counts
from semsim.seeds import stream
from semsim.tasks.processing import Place, Processing
from semsim.tasks.reconstruct import Reconstruct

# ---------------------------------------------------------------------------- the network


class DRSA(nn.Module):
    """Dimension-reduced self-attention: between channels, so its matrix ignores the image's size.

        x ─► 1x1 ─► 3x3 depth-wise ─► Q, K, V [h, d/h, HW]     d = C / reduction
        A = softmax(τ_h · Q Kᵀ / (|Q| |K|)) [h, d/h, d/h],  A V ─► 1x1 ─► C

    Cost O(HW · d² / h). Reduction 1 gives the attention of Restormer.

    Args:
        channels: C.
        heads: h.
        reduction: r.
    """

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        inner = channels // reduction
        if inner * reduction != channels or inner % heads:
            raise ValueError(
                f"{channels} channels do not go into {heads} heads after a reduction by "
                f"{reduction}; choose a width divisible by both"
            )
        self.heads = heads
        self.qkv = Pointwise(channels, 3 * inner)
        self.local = nn.Conv2d(3 * inner, 3 * inner, 3, padding=1, groups=3 * inner)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.out = Pointwise(inner, channels)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return Q, K and V, [B, h, HW, d/h] each."""
        y = self.local(self.qkv(x)).permute(0, 2, 3, 1)
        q, k, v = y.reshape(len(y), -1, 3, self.heads, y.shape[-1] // (3 * self.heads)).permute(
            2, 0, 3, 1, 4
        )
        return q, k, v

    def matrix(self, q: Tensor, k: Tensor) -> Tensor:
        """Return the attention between channels, [B, h, d/h, d/h], rows sum to 1."""
        # dividing the small product equals normalising the large Q and K along the pixels
        squares = q.square().sum(dim=2).unsqueeze(-1) * k.square().sum(dim=2).unsqueeze(-2)
        cosine = (q.transpose(2, 3) @ k) * squares.clamp(min=1e-12).rsqrt()
        return (self.temperature * cosine).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features like x [B, C, H, W]."""
        q, k, v = self.split(x)
        y = v @ self.matrix(q, k).transpose(2, 3)  # [B, h, HW, d/h]
        y = y.transpose(1, 2).reshape(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
        return self.out(y)


class P2FFN(nn.Module):
    """Patch-wise perceptive feed-forward: 1x1 to 2C, k x k depth-wise, GELU, 1x1 back to C."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.first = Pointwise(channels, 2 * channels)
        self.wide = Depthwise(2 * channels, kernel)
        self.second = Pointwise(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return features like x [B, C, H, W]."""
        return self.second(F.gelu(self.wide(self.first(x))))


class MARBlock(nn.Module):
    """x + DRSA(LN x), then the same with P2FFN; LN over the channels of each pixel."""

    def __init__(self, channels: int, heads: int, reduction: int, kernel: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed = PositionNorm(channels), PositionNorm(channels)
        self.attention = DRSA(channels, heads, reduction)
        self.feed = P2FFN(channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Return features like x [B, C, H, W]."""
        x = x + self.attention(self.norm_attention(x))
        return x + self.feed(self.norm_feed(x))


class MARformer(nn.Module):
    """Corrupted slice in, the slice without metal artefacts out.

        slice ─┬─► 3x3 ─► [N₁ blocks] ─► ↓2 [N₂] ─► ↓2 [N₃] ─► ↓2 [N₄] ─► ↑2 [N₃] ─► ↑2 [N₂] ─► ↑2 [N₁] ─► 3x3 ─► + ─►
               └──────────────────────────────────────────────────────────────────────────────────────────────────┘

    Each ↑2 also takes the features of its own level on the way down. The last convolution starts at
    zero, so a fresh network is the identity. Any height and width: padded to a multiple of 8.

    Args:
        width: C, features at full resolution; twice as many at each level below.
        depths: blocks at each level and in the bottleneck.
        reduction: r of DRSA.
        kernel: side of P2FFN's convolution, odd.
    """  # noqa: E501 - the diagram

    def __init__(
        self,
        width: int = 16,
        *,
        depths: Sequence[int] = (1, 1, 2, 2),
        reduction: int = 2,
        kernel: int = 7,
    ) -> None:
        super().__init__()
        check_counts(width=width, reduction=reduction, kernel=kernel)
        if len(depths) != 4 or min(depths) < 0:
            raise ValueError(f"depths are four numbers of blocks, got {list(depths)}")
        if kernel % 2 == 0:
            raise ValueError(f"kernel is odd, got {kernel}; write {kernel - 1} or {kernel + 1}")
        self.spec = {
            "width": width, "depths": list(depths), "reduction": reduction, "kernel": kernel,
        }  # fmt: skip

        def blocks(level: int) -> nn.Sequential:
            made = (
                MARBlock(width << level, 1 << level, reduction, kernel)
                for _ in range(depths[level])
            )
            return nn.Sequential(*made)

        levels = range(3)
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.down = nn.ModuleList(blocks(level) for level in levels)
        self.bottleneck = blocks(3)
        self.up = nn.ModuleList(blocks(level) for level in levels)
        self.shrink = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, c // 2, 3, padding=1), nn.PixelUnshuffle(2))
            for c in (width << level for level in levels)
        )
        self.grow = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * c, 4 * c, 3, padding=1), nn.PixelShuffle(2))
            for c in (width << level for level in levels)
        )
        self.merge = nn.ModuleList(Pointwise(2 * c, c) for c in (width << k for k in levels))
        self.head = nn.Conv2d(width, 1, 3, padding=1)
        start_at_zero(self.head)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Return slices [B, 1, H, W] without artefacts, of slices in [0, 1]; not clipped."""
        height, width = image.shape[-2:]
        x = F.pad(image, (0, -width % 8, 0, -height % 8), mode="replicate")
        x, kept = self.stem(x.contiguous(memory_format=torch.channels_last)), []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            kept.append(blocks(x))
            x = shrink(kept[-1])
        x = self.bottleneck(x)
        for level in (2, 1, 0):
            x = torch.cat([self.grow[level](x), kept[level]], dim=1)
            x = self.up[level](self.merge[level](x))
        return image + self.head(x)[..., :height, :width]


#: arguments of the two sizes; inferred, the paper's own are not known
SIZES: dict[str, dict[str, Any]] = {
    "T": {"width": 16, "depths": (1, 1, 2, 2)},
    "L": {"width": 32, "depths": (2, 3, 3, 4)},
}

# ---------------------------------------------------------------------------- the scanner

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
    if material not in _TABLES:
        raise ValueError(f"material is one of {', '.join(_TABLES)}; got {material!r}")
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


# ---------------------------------------------------------------------------- slices and metal

FIELD_CM = 17.92  #: side of the phantom's slice (inferred: 128 pixels of 1.4 mm)


def dental_phantom(
    size: int, pixel_cm: float, generator: torch.Generator
) -> tuple[Tensor, list[tuple[float, float]]]:
    """Draw a jaw: attenuation [size, size] in cm⁻¹, and where its teeth are, in cm from the centre.

    An ellipse of soft tissue, a horseshoe of cortical around cancellous bone, 10 to 14 teeth with
    pulp along it, a few of them missing; pose and sizes are random (inferred).
    """
    draw = _Draw(generator)
    turn, soft = draw(-0.2, 0.2), draw(1.0, 1.05)
    x, y = _grid(size, pixel_cm)
    x, y = x - draw(-0.4, 0.4), y - draw(-0.4, 0.4)
    x, y = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    mu = torch.zeros(size, size)
    _paint(mu, _ellipse(x, y, 0, 0, draw(6.0, 7.2), draw(7.0, 8.2)), soft, pixel_cm)
    across, along, middle = draw(2.6, 3.3), draw(4.2, 5.2), draw(0.0, 1.0)
    jaw = _horseshoe(x, y - middle, across, along)
    for half, value in ((draw(0.75, 0.95), 1.9), (draw(0.5, 0.62), 1.35)):
        _paint(mu, jaw - half, value, pixel_cm)
    count = 10 + int(draw(0, 5))
    teeth = []
    for angle in torch.linspace(-1.25, 1.25, count).tolist():
        where = (across * math.sin(angle), middle - along * math.cos(angle))
        sides, pulp, gone = (draw(0.36, 0.5), draw(0.36, 0.55)), draw(0.1, 0.16), draw(0, 1)
        if gone > 0.1:
            _paint(mu, _ellipse(x, y, *where, *sides), 2.6, pixel_cm)
            _paint(mu, _ellipse(x, y, *where, pulp, pulp), 1.3, pixel_cm)
            teeth.append(where)
    back = [(u * math.cos(turn) - v * math.sin(turn), v * math.cos(turn) + u * math.sin(turn))
            for u, v in teeth]  # fmt: skip
    return mu * WATER_MU, back


class _Draw:
    """Uniform numbers, one after the other."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def __call__(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))


def _grid(size: int, pixel_cm: float) -> tuple[Tensor, Tensor]:
    """Return x to the right and y downwards of pixel centres, in cm from the middle."""
    at = (torch.arange(size) - (size - 1) / 2) * pixel_cm
    return at[None, :].expand(size, size), at[:, None].expand(size, size)


def _ellipse(x: Tensor, y: Tensor, left: float, top: float, a: float, b: float) -> Tensor:
    """Return about the distance in cm to an ellipse's edge, negative inside."""
    return (((x - left) / a).square() + ((y - top) / b).square()).sqrt().sub(1) * min(a, b)


def _horseshoe(x: Tensor, y: Tensor, a: float, b: float) -> Tensor:
    """Return about the distance in cm to the front of an ellipse's outline, open at the back."""
    radius = ((x / a).square() + (y / b).square()).sqrt()
    slope = torch.hypot(x / a**2, y / b**2) / radius.clamp(min=1e-6)
    outline = (radius - 1).abs() / slope.clamp(min=1e-6)
    return torch.maximum(outline, y - 0.1 * b)


def _paint(mu: Tensor, distance: Tensor, value: float, pixel_cm: float) -> None:
    """Set the inside of a shape, in units of water; its edge is one pixel soft."""
    mu.lerp_(torch.full_like(mu, value), (0.5 - distance / pixel_cm).clamp(0, 1))


def dental_metal(
    size: int,
    pixel_cm: float,
    teeth: Sequence[tuple[float, float]],
    count: int,
    generator: torch.Generator,
) -> Tensor:
    """Return the share of metal in each pixel, [size, size]: ``count`` ellipses on teeth."""
    order = torch.randperm(len(teeth), generator=generator).tolist()[:count]
    sites = [teeth[i] for i in order]
    return _ellipses(size, pixel_cm, sites, (0.21, 0.49), generator)


def body_metal(
    hounsfield: Tensor, pixel_cm: float, count: int, generator: torch.Generator
) -> Tensor:
    """Return the share of metal in each pixel, [S, S]: ``count`` ellipses inside the body.

    Radii from 2.8 to 21 mm, evenly in their logarithm, which is the spread of ADN's test masks
    (adjacent); places and shapes are random (inferred).
    """
    tissue = (hounsfield > -200).float()[None]
    reach = 2 * round(0.8 / pixel_cm) + 1
    deep = F.avg_pool2d(tissue, reach, stride=1, padding=reach // 2)[0]
    inside = (deep > 0.98).nonzero()
    if not len(inside):
        inside = (deep == deep.max()).nonzero()
    picked = inside[torch.randint(len(inside), (count,), generator=generator)]
    centre = (hounsfield.shape[-1] - 1) / 2
    sites = [((c - centre) * pixel_cm, (r - centre) * pixel_cm) for r, c in picked.tolist()]
    return _ellipses(hounsfield.shape[-1], pixel_cm, sites, (0.28, 2.1), generator)


def _ellipses(
    size: int,
    pixel_cm: float,
    sites: Sequence[tuple[float, float]],
    radius_cm: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    draw = _Draw(generator)
    x, y = _grid(size, pixel_cm)
    share = torch.zeros(size, size)
    for left, top in sites:
        scale, flat = math.log(radius_cm[1] / radius_cm[0]), draw(0.7, 1 / 0.7)
        radius = radius_cm[0] * math.exp(draw(0, scale))
        distance = _ellipse(x, y, left, top, radius * math.sqrt(flat), radius / math.sqrt(flat))
        share = torch.maximum(share, (0.5 - distance / pixel_cm).clamp(0, 1))
    return share


# ---------------------------------------------------------------------------- the payload

DENTAL: tuple[Material, ...] = ("Ti", "Fe", "Zr", "Ag")  #: implant, steel, crown, amalgam
IMPLANTS: tuple[Material, ...] = ("Ti", "Fe")
KEEP_BYTES = 1 << 29  #: of simulated slices kept in memory
# by all that decides a slice, because a sweep makes the same payload once per link
_KEPT: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}


class MetalSlices(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """CT slices with metal artefacts (source) beside the same slices without metal (target).

    Grey, repeated over three channels, μ / 0.5 cm⁻¹ clipped to [0, 1]. Without ``path`` the slices
    are procedural jaws with metal on teeth, at 180 views and 2e5 photons per ray. A ``path`` is one
    of:

    - ``hu.npy`` [N, S, S] in HU and ``meta.npz`` (``pixel_mm`` or ``mm_per_px`` of a 512-pixel
      grid, ``split``), or NIfTI volumes ``*.nii``, ``*.nii.gz`` (HU, or [0, 1] taken as -1000 to
      3000 HU; labels and masks beside them are left out): metal is put into the body and scanned,
      with 2e7 photons per ray;
    - the tree of DeepLesion/ADN, ``{train,test}/CASE/SLICE/{gt,1,2,…}.mat``;
    - pairs of equal names in ``{train,test}/{clean,metal}/``, ``.npy`` in [0, 1] or ``.png``; pairs
      in ``{clean,metal}/`` all test.

    The split is the folder's where it has one, else every fifth volume tests (of fewer the last).

    Args:
        count: items; all pairs, 64 phantoms, or one per slice by default. More items than slices
            put new metal into the same slices.
        size: side in pixels; 128 for phantoms, else as stored.
        path: the folder, or None for phantoms.
        split: which part. Phantoms of the two parts never coincide.
        corrupted: ``raw``, or ``li``: the scanner already bridged the metal's trace in the sinogram,
            which nobody can do later, and so sends the classical baseline.
        materials: metals to draw from, one per slice; Ti, Fe, Zr and Ag on teeth, Ti and Fe in
            bodies by default.
        metals: least and largest number of pieces of metal; few are more frequent than many.
        views: projections over 180°, even; 180 up to 128 pixels, then in proportion (256: 320).
        photons: per ray in air; see above.
        seed: decides phantoms, metal and noise, together with the index.
    """  # noqa: E501 - one line of an argument

    name = "mar"

    def __init__(
        self,
        count: int | None = None,
        *,
        size: int | None = None,
        path: str | None = None,
        split: Literal["train", "test"] = "test",
        corrupted: Literal["raw", "li"] = "raw",
        materials: Sequence[Material] | None = None,
        metals: tuple[int, int] = (1, 4),
        views: int | None = None,
        photons: float | None = None,
        seed: int = 0,
    ) -> None:
        check_counts(count=count, size=size, views=views)
        if views is not None and views % 2:
            raise ValueError(f"views is even, got {views}; write {views + 1}")
        if photons is not None and not photons > 0:
            raise ValueError(f"photons must be > 0, got {photons}; leave it out for the default")
        if materials is None:
            materials = DENTAL if path is None else IMPLANTS
        _check_choices(split, corrupted, materials, metals)
        self.split, self.corrupted, self.seed = split, corrupted, seed
        self.materials, self.metals = tuple(materials), tuple(metals)
        self.views, self.photons = views, photons
        self.slices = _Phantoms(size or 128) if path is None else _open(Path(path), split, size)
        if corrupted == "li" and isinstance(self.slices, SlicePairs):
            raise ValueError(
                f"corrupted: li needs sinograms, and {path} holds finished slices; use raw"
            )
        total = len(self.slices)
        self.count = count or (64 if path is None else total)
        if isinstance(self.slices, SlicePairs) and self.count > total:
            raise ValueError(f"{path} holds {total} pairs for {split}, got count {self.count}")
        decides = (path and str(Path(path).resolve()), size, split, corrupted, seed)
        self._key = (*decides, self.materials, self.metals, views, photons)

    def __len__(self) -> int:
        return self.count

    def check_files(self) -> None:
        """Look at the header of every finished slice; ValueError names one that will not do."""
        if isinstance(self.slices, SlicePairs):
            self.slices.check_files()

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -self.count <= index < self.count:
            raise IndexError(f"{self.name} has {self.count} slices, asked for number {index}")
        index %= self.count
        pair = _KEPT.get((*self._key, index))
        if pair is None:
            pair = self._pair(index)
            if (len(_KEPT) + 1) * pair[0].nbytes * 2 <= KEEP_BYTES:
                _KEPT[(*self._key, index)] = pair
        source, target = pair
        return source.expand(3, -1, -1), target.expand(3, -1, -1)

    def _pair(self, index: int) -> tuple[Tensor, Tensor]:
        if isinstance(self.slices, SlicePairs):
            return self.slices.pair(index)
        scan = self.scan(index)
        source = scan.interpolated if self.corrupted == "li" else scan.corrupted
        return source, scan.clean

    def material(self, index: int) -> tuple[Material, int]:
        """Return the metal of a simulated item, and how many pieces of it there are."""
        generator = stream(self.seed, "metal", self.split, index)
        least, most = self.metals
        which = int(torch.randint(len(self.materials), (), generator=generator))
        count = int(torch.randint(least, most + 1, (2,), generator=generator).min())
        return self.materials[which], count

    def scan(self, index: int) -> Scan:
        """Simulate one item, N = 1, with its sinograms, the LI baseline and the metal's trace."""
        if isinstance(self.slices, SlicePairs):
            raise ValueError(f"{self.slices.path} holds finished slices; there is nothing to scan")
        material, count = self.material(index)
        generator = stream(self.seed, "slice", self.split, index)
        mu, metal, pixel_cm = self.slices.slice(index % len(self.slices), count, generator)
        size = mu.shape[-1]
        scanner = Scanner(
            size=size,
            pixel_cm=pixel_cm,
            views=self.views or max(180, 2 * (size * 5 // 8)),
            photons=self.photons or self.slices.photons,
        )
        return scanner.scan(mu[None], metal[None], [material], generator)


class _Phantoms:
    """As many jaws as one asks for."""

    photons = 2e5

    def __init__(self, size: int) -> None:
        self.size, self.pixel_cm = size, FIELD_CM / size

    def __len__(self) -> int:
        return sys.maxsize

    def slice(
        self, index: int, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, float]:
        """Return attenuation, share of metal, and the pixel's side in cm."""
        mu, teeth = dental_phantom(self.size, self.pixel_cm, generator)
        metal = dental_metal(self.size, self.pixel_cm, teeth, count, generator)
        return mu, metal, self.pixel_cm


def _open(path: Path, split: str, size: int | None) -> _Bodies | SlicePairs:
    found = open_slices(path, split, size)
    return _Bodies(found) if isinstance(found, HounsfieldSlices) else found


class _Bodies:
    """CT slices with metal in them."""

    photons = 2e7

    def __init__(self, slices: HounsfieldSlices) -> None:
        self.slices = slices

    def __len__(self) -> int:
        return len(self.slices)

    def slice(
        self, index: int, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, float]:
        """Return attenuation, share of metal, and the pixel's side in cm."""
        hounsfield, pixel_cm = self.slices.slice(index)
        return to_mu(hounsfield), body_metal(hounsfield, pixel_cm, count, generator), pixel_cm


def _check_choices(
    split: str, corrupted: str, materials: Sequence[str], metals: Sequence[int]
) -> None:
    for value, name, known in ((split, "split", "train test"), (corrupted, "corrupted", "raw li")):
        if value not in known.split():
            raise ValueError(f"{name} is {' or '.join(known.split())}, got {value!r}")
    unknown = [m for m in materials if m not in DENSITY]
    if unknown or not materials:
        raise ValueError(f"materials are out of {', '.join(DENSITY)}; got {unknown or 'none'}")
    if len(metals) != 2 or not 0 <= metals[0] <= metals[1]:
        raise ValueError(f"metals is [least, most], 0 <= least <= most, got {list(metals)}")


# ---------------------------------------------------------------------------- the task

CHARBONNIER_EPS = 1e-6  # added to the squared error


class ReduceMetal(Processing):
    """Take the metal artefacts out of a slice, at the scanner or where it is read.

    A slice is grey: of what arrives the mean of the three channels counts, wherever the network
    works. The classical baseline (linear interpolation) needs the sinogram, so it is not a task but
    ``corrupted: li`` of the payload ``mar``: only the scanner can do it.

    Args:
        weights: name of shipped weights or a .safetensors file; None starts a fresh network.
        at: where the slice is processed.
        trainable: also train the network, together with the link.
        size: T or L, what the weights were trained for.
        reduction, kernel: as in :class:`MARformer`.
        loss: ``charbonnier``, mean √(error² + 1e-6) (inferred), or ``log_mse``, the mean PSNR up to a
            factor.
    """  # noqa: E501 - one line of an argument

    def __init__(
        self,
        weights: str | None = "marformer-t",
        *,
        at: Place = "receiver",
        trainable: bool = False,
        size: Literal["T", "L"] = "T",
        reduction: int = 2,
        kernel: int = 7,
        loss: Literal["charbonnier", "log_mse"] = "charbonnier",
    ) -> None:
        super().__init__(at)
        if size not in SIZES or loss not in ("charbonnier", "log_mse"):
            raise ValueError(
                f"size is T or L and loss charbonnier or log_mse, got {size!r} and {loss!r}"
            )
        self._loss = loss
        network = MARformer(**SIZES[size], reduction=reduction, kernel=kernel)
        self.use(network, weights, trainable=trainable, asked=at != "none")

    def process(self, image: Tensor) -> Tensor:
        """Return slices [B, 3, H, W], not clipped, of slices in [0, 1]."""
        return self.network(image.mean(dim=1, keepdim=True)).expand(-1, 3, -1, -1)

    def forward(self, estimate: Tensor) -> Tensor:
        """Return the output [B, 3, H, W]: the grey estimate, processed at the receiver."""
        return super().forward(estimate.mean(dim=1, keepdim=True).expand_as(estimate))

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the loss between the output and the clean slice."""
        if output.shape != target.shape:
            raise ValueError(
                f"metal is reduced towards clean slices, such as those of payload mar; this "
                f"payload's target is {list(target.shape)} for an output of {list(output.shape)}"
            )
        if self._loss == "log_mse":
            return Reconstruct("log_mse").loss(output, target, target)
        return ((output - target).square() + CHARBONNIER_EPS).sqrt().mean()
