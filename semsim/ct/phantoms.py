"""Procedural jaws, and metal in jaws and bodies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from semsim.payloads.ct import (
    WATER_MU,
)

MOST_TEETH = 14  #: of a jaw, where none is missing
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
    count = 10 + int(draw(0, MOST_TEETH - 9))
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
    """Return the share of metal in each pixel, [size, size]: ``count`` ellipses, one on a tooth."""
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
