"""Faces drawn by rule: a person is a set of numbers, a shot is pose, light and noise.

Nobody's face is in them, so that verifiers can be trained and tested anywhere. Inferred; good for
comparing methods, not for saying how safe a verifier of real faces is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from semsim.seeds import stream

TRAITS = 22  #: numbers that make a person


@dataclass(frozen=True)
class Shot:
    """How a face is seen.

    Args:
        x, y: middle of the head, as a share of the side.
        scale: of the head.
        turn: in the plane, in radians.
        yaw: how far the features are turned to the side, -1 to 1.
        light: strength and direction of the light, x and y.
        tint: gain of red, green and blue.
        open: how far the mouth is open, 0 to 1.
    """

    x: float
    y: float
    scale: float
    turn: float
    yaw: float
    light: tuple[float, float]
    tint: tuple[float, float, float]
    open: float


def person(number: int, seed: int) -> list[float]:
    """Return the traits of a person, numbers from 0 to 1."""
    return torch.rand(TRAITS, generator=stream(seed, "person", number)).tolist()


def shot(generator: torch.Generator) -> Shot:
    """Return a random shot."""
    u = (2 * torch.rand(11, generator=generator) - 1).tolist()
    return Shot(
        x=0.5 + 0.035 * u[0], y=0.52 + 0.035 * u[1], scale=1 + 0.07 * u[2], turn=0.12 * u[3],
        yaw=u[4], light=(0.2 * u[5], 0.2 * u[6]),
        tint=(1 + 0.12 * u[7], 1 + 0.08 * u[8], 1 + 0.12 * u[9]), open=(u[10] + 1) / 2,
    )  # fmt: skip


def draw_face(traits: list[float], seen: Shot, size: int, generator: torch.Generator) -> Tensor:
    """Return a face, [3, size, size] in [0, 1].

    Args:
        traits: of :func:`person`.
        seen: how.
        size: side in pixels.
        generator: of background and noise.
    """
    face = Face(traits, seen, size)
    image = face.paint(torch.rand(3, generator=generator))
    noise = 0.02 * torch.randn(3, size, size, generator=generator)
    return (image + noise).clamp(0, 1)


class Face:
    """A face while it is drawn, in coordinates of the head: 1 is half its usual height."""

    def __init__(self, traits: list[float], seen: Shot, size: int) -> None:
        self.t, self.seen, self.size = traits, seen, size
        at = (torch.arange(size) + 0.5) / size
        dx, dy = at[None, :] - seen.x, at[:, None] - seen.y
        c, s = math.cos(seen.turn), math.sin(seen.turn)
        half = 0.42 * seen.scale
        self.u, self.v = (c * dx + s * dy) / half, (c * dy - s * dx) / half
        self.soft = 1 / (half * size)  # a pixel
        self.image = torch.zeros(3, size, size)

    def paint(self, background: Tensor) -> Tensor:
        """Return the image, [3, size, size]."""
        t, shift = self.t, 0.12 * self.seen.yaw
        skin = self._colour(0.45 + 0.45 * t[0], 0.3 + 0.4 * t[0] + 0.1 * t[1], 0.2 + 0.35 * t[0])
        hair = self._colour(*(0.08 + 0.55 * t[2] * v for v in (1.0, 0.75, 0.3 + 0.4 * t[3])))
        self.image = (0.3 + 0.4 * background)[:, None, None].expand(-1, self.size, self.size)
        width, square = 0.62 + 0.22 * t[4], 2 + 1.5 * t[5]
        self._lay(hair, self._oval(0, -0.1 - 0.12 * t[6], width + 0.1, 0.98, square))
        for side in (-1, 1):
            self._lay(
                0.9 * skin, self._oval(side * width + 0.3 * shift, 0.05, 0.1 + 0.08 * t[7], 0.2)
            )
        self._lay(skin, self._oval(0, 0.08, width, 0.9, square))
        fringe = self._oval(
            0.5 * shift, -0.95 + 0.1 * t[8], width * 1.05, 0.25 + 0.25 * t[8], square
        )
        self._lay(hair, fringe * self._oval(0, 0.05, width + 0.1, 1.0, square))
        self._eyes(shift, hair)
        nose = 0.22 + 0.16 * t[15]
        self._lay(0.8 * skin, self._oval(1.4 * shift, 0.02 + nose / 2, 0.05 + 0.08 * t[16], nose))
        self._lay(0.65 * skin, self._oval(1.5 * shift, 0.02 + 1.3 * nose, 0.08 + 0.1 * t[16], 0.05))
        self._mouth(shift, skin)
        lit = 1 + self.seen.light[0] * self.u + self.seen.light[1] * self.v
        return self.image * lit * torch.tensor(self.seen.tint)[:, None, None]

    def _eyes(self, shift: float, hair: Tensor) -> None:
        t = self.t
        apart, up, wide = 0.26 + 0.14 * t[9], -0.12 - 0.1 * t[10], 0.1 + 0.06 * t[11]
        iris = self._colour(0.1 + 0.2 * t[12], 0.1 + 0.35 * t[13], 0.1 + 0.5 * t[12] * t[13])
        brow, tilt = 0.16 + 0.1 * t[14], 0.6 * (t[17] - 0.5)
        for side in (-1, 1):
            x = side * apart + shift
            self._lay(self._colour(0.95, 0.95, 0.95), self._oval(x, up, wide, 0.6 * wide))
            self._lay(iris, self._oval(x + 0.3 * shift, up, 0.5 * wide, 0.5 * wide))
            line = self.v - (up - brow + side * tilt * (self.u - x))
            across = self._soft(0.17 - (self.u - x).abs()) * self._soft(
                0.025 + 0.03 * t[18] - line.abs()
            )
            self._lay(0.8 * hair, across)

    def _mouth(self, shift: float, skin: Tensor) -> None:
        t = self.t
        wide, down = 0.18 + 0.16 * t[19], 0.58 + 0.1 * t[20]
        bend = 0.8 * (t[21] - 0.5)
        line = self.v - down - bend * ((self.u - shift).square() - wide**2 / 2)
        lips = 0.05 + 0.03 * t[20] + 0.03 * self.seen.open
        shape = self._soft(wide - (self.u - shift).abs()) * self._soft(lips - line.abs())
        self._lay(skin * torch.tensor([0.9, 0.5, 0.5]), shape)
        inner = self._soft(0.8 * wide - (self.u - shift).abs())
        self._lay(0.25 * skin, inner * self._soft(0.03 * self.seen.open - line.abs()))

    @staticmethod
    def _colour(red: float, green: float, blue: float) -> Tensor:
        return torch.tensor([red, green, blue])

    def _lay(self, colour: Tensor, share: Tensor) -> None:
        """Lay a colour [3] over the image where ``share`` [size, size] says."""
        self.image = self.image + (colour[:, None, None] - self.image) * share

    def _soft(self, distance: Tensor) -> Tensor:
        return (0.5 + distance / self.soft).clamp(0, 1)

    def _oval(self, x: float, y: float, w: float, h: float, power: float = 2.0) -> Tensor:
        """Return how much of each pixel lies within a superellipse."""
        reach = ((self.u - x) / w).abs().pow(power) + ((self.v - y) / h).abs().pow(power)
        return self._soft((1 - reach.pow(1 / power)) * min(w, h))
