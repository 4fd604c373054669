"""Photos of printed or displayed pictures: perspective, light, moire, blur, noise, JPEG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from semsim.nn.geometry import homography, order_corners, square, transform, warp
from semsim.payloads.images import to_float, to_tensor
from semsim.vision.dbdh.embedders import Pimog, Spread, embed
from semsim.vision.dbdh.message import DATA_BITS, encode_message

Capture = Literal["none", "print", "screen"]


def uniform(g: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=g, device=g.device)


def view(box: Tensor, size: int, jitter: float, turns: bool, g: torch.Generator) -> Tensor:
    """Return homographies [B, 3, 3] from containers to photos of ``size`` pixels.

    Each corner of the container moves by up to ``jitter`` of its side in x and in y; with ``turns``
    the camera is held in any of four ways. What is in the box stays within the photo.
    """
    frame = square(size, box).expand_as(box)
    moved = frame + size * uniform(g, -jitter, jitter, *box.shape)
    turn = torch.randint(4, (len(box),), generator=g, device=g.device) * int(turns)
    order = (turn[:, None] + torch.arange(4, device=g.device)) % 4
    h = homography(frame, moved.gather(1, order[..., None].expand_as(moved)))
    corners, margin = transform(h, box), 3.0
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    zoom = ((size - 2 * margin) / (high - low).amax(dim=1)).clamp_max(1)[:, None]
    shift = (margin - zoom * low).clamp_min(0) + (size - margin - zoom * high).clamp_max(0)
    fit = torch.diag_embed(torch.cat([zoom, zoom, torch.ones_like(zoom)], dim=1))
    fit[:, :2, 2] = shift
    return fit @ h


def jpeg(image: Tensor, quality: Sequence[int]) -> Tensor:
    """Return images after JPEG at these qualities; the gradient passes unchanged."""
    from PIL import Image

    coded = []
    pixels = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
    for item, q in zip(pixels, quality, strict=True):
        file = io.BytesIO()
        Image.fromarray(item.contiguous().numpy()).save(file, "JPEG", quality=int(q))
        coded.append(to_float(to_tensor(Image.open(file))))
    return image + (torch.stack(coded).to(image.device) - image).detach()


def print_noise(image: Tensor, g: torch.Generator) -> Tensor:
    """Return printed images as a camera saves them: blur, contrast, colour, noise, JPEG.

    Kinds adjacent (StegaStamp). Inferred, for images this small: blur of 0.3 to 0.7 pixels on half
    of them, contrast 0.75 to 1.25, brightness and colour +-0.1 and +-0.03, noise of standard
    deviation up to 0.02 (adjacent), JPEG quality 75 to 95.
    """
    n = len(image)
    sigma = uniform(g, 0.3, 0.7, n, 1) * (uniform(g, 0, 1, n, 1) < 0.5) + 1e-3
    taps = torch.exp(-torch.arange(-2.0, 3.0, device=image.device).square() / (2 * sigma**2))
    taps = taps / taps.sum(dim=1, keepdim=True)
    kernel = (taps[:, :, None] * taps[:, None, :]).repeat_interleave(3, dim=0)[:, None]
    flat = F.pad(image, (2, 2, 2, 2), mode="replicate").flatten(0, 1)[None]
    x = F.conv2d(flat, kernel, groups=3 * n)[0].view_as(image)
    colour = uniform(g, -0.1, 0.1, n, 1, 1, 1) + uniform(g, -0.03, 0.03, n, 3, 1, 1)
    x = (x - 0.5) * uniform(g, 0.75, 1.25, n, 1, 1, 1) + 0.5 + colour
    noise = torch.randn(image.shape, generator=g, device=g.device)
    x = (x + uniform(g, 0, 0.02, n, 1, 1, 1) * noise).clamp(0, 1)
    return jpeg(x, torch.randint(75, 96, (n,), generator=g, device=g.device).tolist())


def screen_noise(image: Tensor, g: torch.Generator) -> Tensor:
    """Return images shot from a screen: uneven light, moire of three channels, noise.

    Adjacent: PIMoG's light (linear or radial, from 0.7-0.9 to 1.1-1.3), moire Z and noise of
    variance 0.001 for pixels in [-1, 1]; the weight of Z is up to 0.1 as in GSyncCode, not 0.15.
    """
    n, _, height, width = image.shape
    ramp = torch.linspace(-1, 1, width, device=image.device)
    y, x = torch.meshgrid(torch.linspace(-1, 1, height, device=image.device), ramp, indexing="ij")
    angle = uniform(g, 0, 2 * math.pi, n, 1, 1)
    linear = (x * angle.cos() + y * angle.sin()) / math.sqrt(2)
    at = uniform(g, -1, 1, 2, n, 1, 1)
    radial = 1 - ((x - at[0]).square() + (y - at[1]).square()).sqrt() / math.sqrt(2)
    shape = torch.where(uniform(g, 0, 1, n, 1, 1) < 0.5, linear, radial).clamp(-1, 1) / 2 + 0.5
    low, high = uniform(g, 0.7, 0.9, n, 1, 1), uniform(g, 1.1, 1.3, n, 1, 1)
    light = (low + (high - low) * shape)[:, None]
    middle = uniform(g, 0, 1, 2, n, 3, 1, 1)
    px, py = (x + 1) / 2 * width, (y + 1) / 2 * height
    far = ((px - middle[0] * width).square() + (py - middle[1] * height).square()).sqrt()
    turn = uniform(g, 0, math.pi, n, 3, 1, 1)
    rings = 0.5 + 0.5 * (2 * math.pi * far).cos()
    lines = 0.5 + 0.5 * (px * turn.cos() + py * turn.sin()).cos()
    moire = torch.minimum(rings, lines)  # = 2 Z - 1 with Z = (min + 1) / 2
    weight = uniform(g, 0, 0.1, n, 1, 1, 1)
    shot = (1 - weight) * (2 * image - 1) * light + weight * moire
    noise = math.sqrt(0.001) * torch.randn(image.shape, generator=g, device=g.device)
    return ((shot + noise + 1) / 2).clamp(0, 1)


def shoot(
    container: Tensor,
    box: Tensor,
    background: Tensor,
    capture: Capture,
    g: torch.Generator,
    *,
    jitter: float = 0.15,
    turns: bool = True,
) -> tuple[Tensor, Tensor]:
    """Take photos of containers that hang before other pictures.

    Args:
        container, background: [B, 3, H, H].
        box: corners of the region in the container, [B, 4, 2].
        capture: ``none`` changes neither geometry nor pixels.
        g: decides all that is random.
        jitter, turns: see :func:`view`.

    Returns:
        photos [B, 3, H, H] of 8 bits per value, and the region's corners there, [B, 4, 2], in the
        code's own order.
    """
    if capture == "none":
        return _eight_bits(container), box
    size = container.shape[-1]
    h = view(box, size, jitter, turns, g)
    back = torch.linalg.inv(h)
    inside = warp(torch.ones_like(container[:, :1]), back, (size, size))
    seen = warp(container, back, (size, size), padding="border")
    photo = inside * seen + (1 - inside) * background
    noisy = print_noise(photo, g) if capture == "print" else screen_noise(photo, g)
    return _eight_bits(noisy), transform(h, box)


def _eight_bits(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round() / 255


def draw_box(count: int, size: int, side: tuple[float, float], g: torch.Generator) -> Tensor:
    """Return upright squares at whole pixels, sides drawn as shares of ``size``, [B, 4, 2]."""
    edge = (uniform(g, *side, count, 1) * size).round()
    corner = (torch.rand(count, 2, generator=g, device=g.device) * (size - edge)).floor()
    return corner[:, None] + edge[..., None] * square(1, edge)


def photograph(
    cover: Tensor,
    background: Tensor,
    method: Spread | Pimog,
    g: torch.Generator,
    *,
    strength: float | Tensor,
    capture: Capture,
    side: tuple[float, float],
    turns: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Embed random messages in random places and take photos: photos, corners in order, bits."""
    box = draw_box(len(cover), cover.shape[-1], side, g)
    data = torch.randint(2, (len(cover), DATA_BITS), generator=g, device=g.device)
    bits = encode_message(data)
    container = embed(method, cover, box, bits, strength)
    photo, corners = shoot(container, box, background, capture, g, turns=turns)
    return photo, order_corners(corners), bits
