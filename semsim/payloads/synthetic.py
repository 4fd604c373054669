"""Procedural images with the statistics of photos: no file, any number, any size."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from channels.checks import check_choice
from semsim.payloads.images import ImagePayload, check_counts
from semsim.payloads.kept import Kept
from semsim.seeds import stream

LEAVES = 300  # cover the image about ten times over
KEEP_BYTES = 1 << 30  #: of drawn images kept in memory; what comes later is drawn each time
_KEPT = Kept(KEEP_BYTES)


class Synthetic(ImagePayload):
    """Dead leaves or 1/f noise, each image or clip decided by its index and the seed.

    Good for tests and first training steps, not for results: numbers on it say nothing of photos.

    Args:
        count: number of images.
        size: height and width in pixels.
        texture: ``dead_leaves``, opaque discs with a power law of radii, whose edges and flat areas
            resemble photos; or ``pink``, Gaussian noise with the 1/f amplitude spectrum of photos.
        seed: decides the images, together with the index.
        frames: T, for items that are clips [T, 3, size, size] of a camera that moves across the
            image, a pixel down and right per frame; images where None.

    Source: Lee, Mumford, Huang, Occlusion models for natural images (2001).
    """

    name = "synthetic"

    def __init__(
        self,
        count: int = 1000,
        size: int = 32,
        *,
        texture: Literal["dead_leaves", "pink"] = "dead_leaves",
        seed: int = 0,
        frames: int | None = None,
    ) -> None:
        check_counts(count=count, size=size, frames=frames)
        check_choice("texture", texture, ("dead_leaves", "pink"))
        self.count, self.size, self.seed, self.texture = count, size, seed, texture
        self.frames = frames
        self._draw = _dead_leaves if texture == "dead_leaves" else _pink

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of every source."""
        frames = () if self.frames is None else (self.frames,)
        return (*frames, 3, self.size, self.size)

    def __len__(self) -> int:
        return self.count

    def pixels(self, index: int) -> Tensor:
        """Return one image, uint8 [3, size, size], or one clip [T, 3, size, size]."""
        side = self.size + (self.frames or 1) - 1
        key = (self.texture, side, self.seed, index)
        (image,) = _KEPT.get(key, lambda: (self._drawn(side, index),))
        if self.frames is None:
            return image
        seen = (image[:, t : t + self.size, t : t + self.size] for t in range(self.frames))
        return torch.stack(list(seen))

    def _drawn(self, side: int, index: int) -> Tensor:
        image = self._draw(side, stream(self.seed, self.texture, index))
        return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def _dead_leaves(size: int, generator: torch.Generator) -> Tensor:
    """Paint discs over each other; radii have density r^-3 between size / 20 and size / 2."""
    draw = torch.rand(7, LEAVES, generator=generator)
    least, most = size / 20, size / 2
    radius = (least**-2 + draw[0] * (most**-2 - least**-2)) ** -0.5
    rows, columns = draw[1] * size, draw[2] * size
    colour = draw[3] + 0.3 * (draw[4:] - 0.5)  # mostly brightness, as in photos
    image = colour[:, :1, None].repeat(1, size, size)
    grid = torch.arange(size) + 0.5
    discs = torch.stack([radius, rows, columns]).T.tolist()
    for (r, row, column), c in zip(discs, colour.T, strict=True):
        top, left = max(int(row - r), 0), max(int(column - r), 0)
        y = grid[top : int(row + r) + 2] - row
        x = grid[left : int(column + r) + 2] - column
        inside = (r - (y[:, None].square() + x.square()).sqrt() + 0.5).clamp(0, 1)  # soft edge
        patch = image[:, top : top + len(y), left : left + len(x)]
        patch.lerp_(c[:, None, None].expand_as(patch), inside.expand_as(patch))
    return image


def _pink(size: int, generator: torch.Generator) -> Tensor:
    """Filter white noise to amplitude 1/f; one common part makes the channels correlate."""
    white = torch.randn(4, size, size, generator=generator)
    rows, columns = torch.fft.fftfreq(size), torch.fft.rfftfreq(size)
    frequency = (rows[:, None].square() + columns.square()).sqrt().clamp(min=1 / size)
    noise = torch.fft.irfft2(torch.fft.rfft2(white) / frequency, s=(size, size))
    noise = noise / noise.std(dim=(1, 2), keepdim=True).clamp(min=1e-6)
    return 0.5 + 0.2 * (0.97 * noise[:1] + 0.24 * noise[1:])  # 0.97^2 + 0.24^2 = 1
