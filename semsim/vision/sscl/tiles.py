"""Aerial tiles drawn by rule: terrain, gullies, rocks, fields, roads, roofs, and rarely a site.

A site is a cluster of thin, broken wall outlines with a lit and a shaded side. What a region looks
like (colours, sun, roughness, how often there are fields or roads) hangs on its number, so that
tiles of one region resemble each other and a split by region is harder than one by tile.

All of it is inferred: the paper's imagery is not public.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from semsim.seeds import stream

BLUR = 0.6  #: half the width of a wall in pixels, beside its soft edge


@dataclass(frozen=True)
class Region:
    """How tiles of one region look.

    Args:
        low, high: colours between which the ground lies, [3].
        sun: direction that light comes from, in radians.
        roughness: exponent of the terrain's spectrum.
        fields, roads, roofs, corrals: how often they are in a tile.
    """

    low: Tensor
    high: Tensor
    sun: float
    roughness: float
    fields: float
    roads: float
    roofs: float
    corrals: float


def region(number: int, seed: int) -> Region:
    """Return a region by its number."""
    u = torch.rand(12, generator=stream(seed, "region", number)).tolist()
    base = torch.tensor([0.35 + 0.25 * u[0], 0.32 + 0.2 * u[1], 0.22 + 0.2 * u[2]])
    return Region(
        low=base,
        high=(base + 0.12 + 0.15 * torch.tensor(u[3:6])).clamp(max=0.9),
        sun=2 * math.pi * u[6],
        roughness=1.6 + 0.8 * u[7],
        fields=0.1 + 0.3 * u[8],
        roads=0.1 + 0.3 * u[9],
        roofs=0.05 + 0.2 * u[10],
        corrals=0.05 + 0.2 * u[11],
    )


def draw_tile(
    look: Region, has_site: bool, contrast: float, size: int, generator: torch.Generator
) -> Tensor:
    """Return one tile, [3, size, size] in [0, 1].

    Args:
        look: of its region.
        has_site: whether a site is drawn.
        contrast: of walls against the ground, 0 to 1.
        size: side in pixels.
        generator: of all that is random.
    """
    canvas = Canvas(look, size, generator)
    canvas.ground()
    if canvas.chance(look.fields):
        canvas.field()
    if canvas.chance(look.corrals):
        canvas.walls(1, (11.0, 20.0), contrast)
    if canvas.chance(look.roads):
        canvas.road()
    if canvas.chance(look.roofs):
        canvas.roof()
    if has_site:
        canvas.walls(3 + int(10 * canvas.draw(1)[0]), (4.0, 9.0), contrast)
    noise = 0.015 * torch.randn(3, size, size, generator=generator)
    return (canvas.image + noise).clamp(0, 1)


class Canvas:
    """A tile while it is drawn.

    Args:
        look: of the region.
        size: side in pixels.
        generator: of all that is random.
    """

    def __init__(self, look: Region, size: int, generator: torch.Generator) -> None:
        self.look, self.size, self.generator = look, size, generator
        self.image = torch.zeros(3, size, size)
        at = torch.arange(size) + 0.5
        self.y, self.x = at[:, None].expand(size, size), at.expand(size, size)
        turned = look.sun + 0.3 * (self.draw(1)[0] - 0.5)
        self.light = (math.cos(turned), math.sin(turned))  # x and y of where light comes from

    def draw(self, count: int) -> list[float]:
        """Return uniform numbers."""
        return torch.rand(count, generator=self.generator).tolist()

    def chance(self, share: float) -> bool:
        """Tell whether something is there that is so often there."""
        return self.draw(1)[0] < share

    def noise(self, exponent: float) -> Tensor:
        """Return fractal noise of mean 0 and variance 1, [size, size]."""
        white = torch.randn(self.size, self.size, generator=self.generator)
        rows, columns = torch.fft.fftfreq(self.size), torch.fft.rfftfreq(self.size)
        frequency = (rows[:, None].square() + columns.square()).sqrt().clamp(min=1 / self.size)
        shaped = torch.fft.rfft2(white) * frequency.pow(-exponent)
        found = torch.fft.irfft2(shaped, s=(self.size, self.size))
        return (found - found.mean()) / found.std().clamp(min=1e-6)

    def ground(self) -> None:
        """Paint terrain with its shade, gullies and rocks."""
        height, tone = self.noise(self.look.roughness), self.noise(1.2)
        low, high = self.look.low[:, None, None], self.look.high[:, None, None]
        colour = low + (high - low) * torch.sigmoid(1.2 * tone)
        dx = height - height.roll(1, 1)
        dy = height - height.roll(1, 0)
        shade = self.light[0] * dx + self.light[1] * dy
        self.image = colour * (1 + 0.25 * (shade / shade.std().clamp(min=1e-6)).tanh())
        if self.chance(0.5):  # the zero line of smooth noise meanders as water does
            line = self.noise(2.2).abs()
            self.image = self.image * (1 - 0.3 * (1 - line / 0.06).clamp(0, 1))
        for _ in range(int(14 * self.draw(1)[0])):
            x, y, radius, tone_ = self.draw(4)
            self._lump(x * self.size, y * self.size, 0.6 + 1.2 * radius, 0.08 + 0.1 * tone_)

    def _lump(self, x: float, y: float, radius: float, height: float) -> None:
        """Paint a rock: light on the sunny side, dark on the other."""
        away = ((self.x - x).square() + (self.y - y).square()) / radius**2
        side = ((self.x - x) * self.light[0] + (self.y - y) * self.light[1]) / radius
        self.image = self.image + 2 * height * side * (-away).exp()

    def field(self) -> None:
        """Paint stripes within a turned rectangle."""
        x, y, w, h, turn, period, strength = self.draw(7)
        u, v = self._turned(x * self.size, y * self.size, math.pi * turn)
        inside = (u.abs() < self.size * (0.15 + 0.25 * w)) & (
            v.abs() < self.size * (0.15 + 0.3 * h)
        )
        stripes = (2 * math.pi * u / (3 + 4 * period)).sin()
        self.image = self.image * (1 + inside * (0.05 + 0.06 * strength) * stripes)

    def road(self) -> None:
        """Paint a straight bright band across."""
        x, y, turn, width, strength = self.draw(5)
        u, _ = self._turned(x * self.size, y * self.size, math.pi * turn)
        band = (1 + width - u.abs() + 0.5).clamp(0, 1)
        self.image = self.image + band * (0.1 + 0.15 * strength)

    def roof(self) -> None:
        """Paint a bright modern roof and its shadow."""
        x, y, w, h, turn, strength = self.draw(6)
        half = 2.5 + 4 * w, 2.5 + 4 * h
        for shift, level in ((1.5, -0.2), (0.0, 0.2 + 0.2 * strength)):
            middle = (x * self.size - shift * self.light[0], y * self.size - shift * self.light[1])
            u, v = self._turned(*middle, math.pi * turn)
            distance = torch.maximum(u.abs() - half[0], v.abs() - half[1])
            self.image = self.image + level * (0.5 - distance).clamp(0, 1)

    def walls(self, count: int, sides: tuple[float, float], contrast: float) -> None:
        """Paint wall outlines in a cluster: broken, eroded, lit from one side.

        Args:
            count: outlines.
            sides: least and largest side in pixels.
            contrast: of a whole wall.
        """
        edge = 0.22 * self.size
        x, y, turn, spread = self.draw(4)
        x, y = (edge + v * (self.size - 2 * edge) for v in (x, y))
        wall = torch.zeros(self.size, self.size)
        for _ in range(count):
            dx, dy, w, h, round_, twist = self.draw(6)
            reach = (0.08 + 0.12 * spread) * self.size * math.sqrt(count / 3)
            at = (x + (2 * dx - 1) * reach, y + (2 * dy - 1) * reach)
            half = [(sides[0] + v * (sides[1] - sides[0])) / 2 for v in (w, h)]
            u, v = self._turned(*at, math.pi * turn + 0.25 * (twist - 0.5))
            box = torch.maximum(u.abs() - half[0], v.abs() - half[1])
            circle = (u.square() + v.square()).sqrt() - half[0]
            outline = (circle if round_ < 0.3 else box).abs()
            wall = torch.maximum(wall, (1 + BLUR - outline).clamp(0, 1))
        standing = torch.sigmoid(4 * (self.noise(0.8) + 0.5)) * torch.sigmoid(
            3 * self.noise(1.8) + 2
        )
        wall = contrast * wall * standing
        columns, rows = (round(1.4 * c) for c in self.light)
        shadow = wall.roll((-rows, -columns), (0, 1))
        self.image = self.image + wall - 0.7 * shadow

    def _turned(self, x: float, y: float, angle: float) -> tuple[Tensor, Tensor]:
        """Return coordinates about a point, turned."""
        c, s = math.cos(angle), math.sin(angle)
        dx, dy = self.x - x, self.y - y
        return c * dx + s * dy, c * dy - s * dx
