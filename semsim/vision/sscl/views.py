"""Random views of tiles: cut, turned, mirrored, in other light. And an embedding's way by radio."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from channels.units import db_to_linear
from semsim.vision.sscl.network import unit_rms

LEAST_AREA = 0.4  #: of a random crop
BLUR = (1.0, 2.0, 1.0)  #: taps of the blur, to be normalised
GREY, BLURRED = 0.2, 0.2  #: how often


def view(image: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random view of each tile, [B, 3, H, W] in [0, 1]."""
    return recoloured(moved(image, generator), generator)


def moved(image: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random crop of each tile, scaled back, turned by quarters and mirrored."""
    u = _uniform(image, 5, generator)
    scale = (LEAST_AREA + (1 - LEAST_AREA) * u[0]).sqrt()
    shift = (1 - scale) * (2 * u[1:3] - 1)
    quarter = (4 * u[3]).floor() * (torch.pi / 2)
    mirror = torch.where(u[4] < 0.5, -1.0, 1.0)
    c, s = scale * quarter.cos(), scale * quarter.sin()
    rows = [torch.stack([c * mirror, -s, shift[0]], 1), torch.stack([s * mirror, c, shift[1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)


def recoloured(image: Tensor, generator: torch.Generator) -> Tensor:
    """Return tiles in other light, some grey, some blurred."""
    u = _uniform(image, 7, generator)[:, :, None, None, None]
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    image = mean + (image - mean) * (0.7 + 0.6 * u[0])
    gains = (0.85 + 0.3 * u[2:5]).squeeze(2).transpose(0, 1)  # [B, 3, 1, 1]
    image = image * (0.8 + 0.4 * u[1]) * gains
    image = torch.where(u[5] < GREY, image.mean(dim=1, keepdim=True), image)
    taps = image.new_tensor(BLUR)
    kernel = (taps[:, None] * taps / taps.sum() ** 2).expand(3, 1, 3, 3)
    blurred = F.conv2d(F.pad(image, (1, 1, 1, 1), mode="reflect"), kernel, groups=3)
    return torch.where(u[6] < BLURRED, blurred, image).clamp(0, 1)


def by_radio(embedding: Tensor, snr_db: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Return embeddings of unit rms after AWGN of a random SNR, [B, D], scaled to unit rms again.

    As the codec ``values`` sends them, up to the noise of its header: two reals to a symbol.

    Args:
        embedding: [B, D], unit rms.
        snr_db: least and largest, in dB.
        generator: of SNR and noise.
    """
    low, high = snr_db
    snr = low + (high - low) * _uniform(embedding, 1, generator)[0]
    noise = torch.randn(embedding.shape, generator=generator, device=embedding.device)
    return unit_rms(embedding + noise * db_to_linear(-snr).sqrt()[:, None])


def _uniform(image: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, len(image), generator=generator, device=image.device)
