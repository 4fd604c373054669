"""What happens to a face before it is restored: blur, fewer pixels, noise, JPEG."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from channels.checks import check_span
from semsim.vision.faces.defences import jpeg


@dataclass(frozen=True)
class Degradation:
    """The usual chain of blind face restoration; each face draws within these ends.

        face ─► Gaussian blur ─► fewer pixels ─► noise ─► JPEG ─► as many pixels as before

    Inferred.

    Args:
        blur: standard deviation of the blur in pixels, lowest and highest.
        factors: by one of which height and width are divided.
        noise: standard deviation, of values in [0, 1].
        quality: of JPEG.
    """

    blur: tuple[float, float] = (0.2, 3.0)
    factors: tuple[int, ...] = (1, 2, 4)
    noise: tuple[float, float] = (0.0, 0.06)
    quality: tuple[int, int] = (40, 95)

    def __post_init__(self) -> None:
        ends = {"blur": self.blur, "noise": self.noise, "quality": self.quality}
        for name, (low, high) in ends.items():
            check_span(name, (low, high))
            if low < 0:
                raise ValueError(f"{name} is at least 0, got {[low, high]}")
        if not self.blur[0] > 0 or not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise ValueError(
                f"blur is above 0 and quality lies between 1 and 100, got {list(self.blur)} and "
                f"{list(self.quality)}"
            )
        if not self.factors or min(self.factors) < 1:
            raise ValueError(f"factors are whole numbers of at least 1, got {list(self.factors)}")

    def __call__(self, face: Tensor, generator: torch.Generator) -> Tensor:
        """Return a degraded face, [3, H, W] in [0, 1]."""
        u = torch.rand(4, generator=generator).tolist()
        low, high = self.blur
        image = blurred(face[None], low + (high - low) * u[0])
        height, width = face.shape[-2:]
        factor = self.factors[int(u[1] * len(self.factors))]
        shape = (max(height // factor, 1), max(width // factor, 1))
        image = F.interpolate(image, shape, mode="bicubic", antialias=True)
        low, high = self.noise
        noise = torch.randn(image.shape, generator=generator)
        image = (image + (low + (high - low) * u[2]) * noise).clamp(0, 1)
        low, high = self.quality
        image = jpeg(image[0], round(low + (high - low) * u[3]))[None]
        return F.interpolate(image, (height, width), mode="bicubic")[0].clamp(0, 1)


def blurred(image: Tensor, deviation: float) -> Tensor:
    """Return images [B, C, H, W] after a Gaussian of so many pixels; borders are mirrored."""
    reach = min(max(1, round(3 * deviation)), min(image.shape[-2:]) - 1)
    at = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    window = torch.softmax(-at.square() / (2 * deviation**2), dim=0)
    channels = image.shape[1]
    wide = F.pad(image, (reach,) * 4, mode="reflect")
    down = F.conv2d(wide, window.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)
    return F.conv2d(down, window.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)
