"""Two ways to hide 30 bits in a region, how to embed with them, and how to read a photo."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semsim.mistakes import SpecError
from semsim.nn.geometry import area, homography, rectify, region_mask, square, transform, warp
from semsim.nn.resnet import BasicBlock
from semsim.seeds import stream
from semsim.vision.dbdh.filters import LUMA
from semsim.vision.dbdh.message import BITS, decode_message
from semsim.vision.dbdh.network import conv_bn_relu

SIDE = 64  #: pixels of a region's side when it is upright
TILE = 8  # pixels of the side of the tile that ``spread`` repeats


class Spread(nn.Module):
    """Hide 30 bits under key-seeded noise, without training; read them by correlation.

    Bit i adds or subtracts carrier i: noise, band-passed and orthogonal to the others. One more
    pattern, always the same, holds ``sync`` of the power: a small tile again and again, a texture
    by which the region can be found, and noise, by which the reader shifts the corners of the crop
    until it fits; carriers so fine forgive less than half a pixel.

    Args:
        key: decides the patterns.
        band: least and largest frequency in cycles per pixel of the upright region.
        sync: share of the power in the pattern that carries no bit.

    Inferred, after Cox, Kilian, Leighton, Shamoon, Secure spread spectrum watermarking for
    multimedia (1997); the tiles after Kutter, Watermarking resisting to translation, rotation, and
    scaling (1998).
    """

    carriers: Tensor
    pattern: Tensor

    def __init__(
        self, key: int = 0, *, band: tuple[float, float] = (0.15, 0.45), sync: float = 0.5
    ) -> None:
        super().__init__()
        noise = band_passed(torch.randn(BITS + 1, SIDE, SIDE, generator=stream(key, "noise")), band)
        tile = band_passed(torch.randn(1, TILE, TILE, generator=stream(key, "tile")), band)
        noise[BITS] = noise[BITS] + 1.2 * tile[0].repeat(SIDE // TILE, SIDE // TILE)
        basis = torch.linalg.qr(noise.flatten(1).double().T)[0].T.float() * SIDE  # rms 1
        self.register_buffer("carriers", basis[:BITS])  # [30, 64 * 64]
        self.register_buffer("pattern", basis[BITS].view(SIDE, SIDE))
        self.sync = sync

    def residual(self, region: Tensor, bits: Tensor) -> Tensor:
        """Return what to add to upright regions [B, 3, 64, 64], of rms 1, the same for R, G, B."""
        mark = (2 * bits - 1) @ self.carriers * math.sqrt((1 - self.sync) / BITS)
        mark = mark.view(-1, 1, SIDE, SIDE) + math.sqrt(self.sync) * self.pattern
        return mark.expand_as(region)

    def read(self, crop: Tensor) -> Tensor:
        """Return soft bits [B, 30], positive for 1, of upright crops [B, 3, 64, 64]."""
        return whiten(crop).flatten(1) @ self.carriers.T / SIDE

    def align(self, photo: Tensor, quad: Tensor, rounds: int = 3) -> tuple[Tensor, Tensor]:
        """Move corners to where the fixed pattern fits best.

        In each round, each quarter of the crop looks for the shift at which it correlates best with
        its quarter of the pattern; the four shifts make a homography.

        Args:
            photo: [B, 3, H, W].
            quad: corners [B, 4, 2], the code's own top left first.
            rounds: how often; the reach in pixels of the crop shrinks from 6 to 2.

        Returns:
            corners [B, 4, 2], and how well the pattern fits them, [B].
        """
        corners = square(SIDE, quad)
        half = SIDE // 2
        middles = square(half, quad) + half / 2
        pattern = F.unfold(self.pattern[None, None], half, stride=half)[0].T.view(4, half, half)
        spectrum = torch.fft.rfft2(pattern[[0, 1, 3, 2]], s=(SIDE, SIDE)).conj()
        for reach in torch.linspace(6, 2, rounds).tolist():
            crop = whiten(rectify(photo, quad, SIDE))
            parts = F.unfold(crop, half, stride=half).mT.view(-1, 4, half, half)[:, [0, 1, 3, 2]]
            fit = torch.fft.irfft2(torch.fft.rfft2(parts, s=(SIDE, SIDE)) * spectrum)
            shift = _peak(torch.fft.fftshift(fit, dim=(2, 3)), reach)
            to_photo = homography(corners.expand_as(quad), quad)
            moved = transform(homography(middles.expand_as(quad), middles + shift),
                              corners.expand_as(quad))  # fmt: skip
            candidate = transform(to_photo, moved)
            better = self._fit(photo, candidate) > self._fit(photo, quad)
            quad = torch.where(better[:, None, None], candidate, quad)
        return quad, self._fit(photo, quad)

    def _fit(self, photo: Tensor, quad: Tensor) -> Tensor:
        return (whiten(rectify(photo, quad, SIDE))[:, 0] * self.pattern).mean(dim=(1, 2))


def _peak(fit: Tensor, reach: float) -> Tensor:
    """Return the shift (x, y) of the largest value within reach of the middle, [..., 2].

    A parabola through the value and its two neighbours, in x and in y, finds it between pixels.
    """
    middle, steps = fit.shape[-1] // 2, math.ceil(reach)
    near = fit[..., middle - steps : middle + steps + 1, middle - steps : middle + steps + 1]
    width = 2 * steps + 1
    place = near.flatten(-2).argmax(dim=-1)
    x, y = place % width - steps, place // width - steps
    flat, size = fit.flatten(-2), fit.shape[-1]
    at = (y + middle) * size + x + middle

    def value(offset: int) -> Tensor:
        return flat.gather(-1, (at + offset)[..., None])[..., 0]

    def between(before: Tensor, peak: Tensor, after: Tensor) -> Tensor:
        bend = (2 * peak - before - after).clamp_min(1e-9)
        return ((after - before) / (2 * bend)).clamp(-0.5, 0.5)

    dx = between(value(-1), value(0), value(1))
    dy = between(value(-size), value(0), value(size))
    return torch.stack([x + dx, y + dy], dim=-1)


def band_passed(noise: Tensor, band: tuple[float, float]) -> Tensor:
    """Return noise [N, side, side] with what lies in a band of cycles per pixel, of rms 1."""
    f = torch.fft.fftfreq(noise.shape[-1])
    radius = (f[:, None].square() + f.square()).sqrt()
    kept = torch.fft.ifft2(torch.fft.fft2(noise) * ((radius >= band[0]) & (radius <= band[1]))).real
    return kept / kept.square().mean(dim=(1, 2), keepdim=True).sqrt()


def whiten(crop: Tensor) -> Tensor:
    """Return the luma of a crop with its local mean taken off and its local spread made about one.

    [B, 3, H, W] to [B, 1, H, W]; a pixel in a busy place then weighs no more than one in the sky.
    """
    luma = (crop * crop.new_tensor(LUMA).view(3, 1, 1)).sum(dim=1, keepdim=True)
    fine = luma - F.avg_pool2d(F.pad(luma, (2, 2, 2, 2), mode="reflect"), 5, 1)
    power = F.avg_pool2d(F.pad(fine.square(), (3, 3, 3, 3), mode="reflect"), 7, 1)
    return fine / (power + (1 / 255) ** 2).sqrt()


class PimogEncoder(nn.Module):
    """Region and bits to a residual: a U-Net of 16, 32, 64 channels.

    Bits become a 16 x 16 map as in PIMoG (30 ─► 256 ─► 1 x 16 x 16), which joins on the way up at
    each size. The residual has mean 0 and rms 1: its strength is set outside.

    Ours: the map is widened to 16 channels (PIMoG: 64), and the bottom sees no pooled feature of
    the whole region.
    """

    def __init__(self, bits: int = BITS) -> None:
        super().__init__()
        self.spec = {"bits": bits}
        self.down1, self.down2, self.down3 = (
            conv_bn_relu(3, 16, 3),
            conv_bn_relu(16, 32, 3, 2),
            conv_bn_relu(32, 64, 3, 2),
        )
        self.words = nn.Linear(bits, 256)
        self.widen = conv_bn_relu(1, 16, 3)
        self.bottom = conv_bn_relu(64 + 16, 64, 3)
        self.up2, self.up1 = conv_bn_relu(64 + 32 + 16, 32, 3), conv_bn_relu(32 + 16 + 16, 16, 3)
        self.out = nn.Conv2d(16, 3, 1)

    def forward(self, region: Tensor, bits: Tensor) -> Tensor:
        """Return the residual [B, 3, 64, 64] of upright regions [B, 3, 64, 64] and bits [B, 30]."""
        fine = self.down1(region - 0.5)
        middle = self.down2(fine)
        code = self.widen(self.words(2 * bits - 1).view(-1, 1, 16, 16))
        x = self.bottom(torch.cat([self.down3(middle), code], dim=1))
        for skip, up in ((middle, self.up2), (fine, self.up1)):
            size = skip.shape[2:]
            x = torch.cat([F.interpolate(x, size), skip, F.interpolate(code, size)], dim=1)
            x = up(x)
        residual = self.out(x)
        residual = residual - residual.mean(dim=(2, 3), keepdim=True)
        residual = residual / residual.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return 2.5 * torch.tanh(residual / 2.5)  # no few pixels may hold all of the power


class PimogDecoder(nn.Module):
    """Upright crops to soft bits: convolutions with residual blocks, a 16 x 16 map, 30 numbers.

    Ours, smaller than PIMoG's: two convolutions and two residual blocks of 48 channels, a map of
    4 x 16 x 16. PIMoG has three and three of 64, then three stages of stride 2 to 1 x 16 x 16.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.spec = {"width": width}
        self.body = nn.Sequential(
            conv_bn_relu(3, 16, 3), conv_bn_relu(16, width, 3, 2),
            BasicBlock(width, width, 1, "none"),
            BasicBlock(width, width, 2, "none"), nn.Conv2d(width, 4, 1),
        )  # fmt: skip
        self.bits = nn.Linear(4 * 256, BITS)

    def forward(self, crop: Tensor) -> Tensor:
        """Return soft bits [B, 30], positive for 1, of upright crops [B, 3, 64, 64]."""
        return self.bits(self.body(crop - crop.mean(dim=(2, 3), keepdim=True)).flatten(1))


class Pimog(nn.Module):
    """Hide 30 bits with a trained encoder, read them with its decoder.

    Args:
        weights: name of shipped weights or a .safetensors file; None for untrained networks.

    Adjacent: the U-Net's sizes, the way of the bits and the capture noise of PIMoG (Fang, Jia, Ma,
    Chang, Zhang, ACM MM 2022). Inferred: the region of 64 pixels, the fixed power instead of losses
    that weigh the image, and what encoder and decoder call ours.
    """

    def __init__(self, weights: str | None = "pimog-64") -> None:
        from semsim import zoo

        super().__init__()
        self.encoder, self.decoder = PimogEncoder(), PimogDecoder()
        if weights is not None:
            zoo.load_parts(weights, {"encoder": self.encoder, "decoder": self.decoder})
            self.requires_grad_(False).eval()

    def residual(self, region: Tensor, bits: Tensor) -> Tensor:
        """Return what to add to upright regions [B, 3, 64, 64], of rms about 1."""
        return self.encoder(region, bits)

    def read(self, crop: Tensor) -> Tensor:
        """Return soft bits [B, 30], positive for 1, of upright crops [B, 3, 64, 64]."""
        return self.decoder(crop)

    def align(self, photo: Tensor, quad: Tensor) -> tuple[Tensor, Tensor]:
        """Leave the corners as they are: the decoder was trained to bear a shift of two pixels."""
        return quad, self.read(rectify(photo, quad, SIDE)).abs().mean(dim=1)


Embedding = Literal["spread", "pimog"]


def make_embedder(kind: str, key: int = 0) -> Spread | Pimog:
    """Return ``spread`` with a key or ``pimog`` with its shipped weights, frozen."""
    if kind not in ("spread", "pimog"):
        raise ValueError(f"embedder is spread or pimog, got {kind!r}")
    return Spread(key).requires_grad_(False) if kind == "spread" else Pimog()


def check_embedding(payload: Any, embedder: str, key: int, who: str) -> None:
    """Raise ValueError where a payload's codes are not those that ``who`` reads."""
    mine = (embedder, key if embedder == "spread" else 0)
    from semsim.vision.dbdh.photos import MarkedPhotos

    theirs = payload.embedding if isinstance(payload, MarkedPhotos) else None
    if theirs is not None and theirs != mine:
        text = (
            f"the embedder is {mine[0]} with key {mine[1]}, payload.embedder {theirs[0]} with "
            f"key {theirs[1]}; write the same for both, or every bit is a guess"
        )
        raise SpecError("task.embedder", text) if who == "task" else ValueError(f"{who}: {text}")


def embed(
    method: Spread | Pimog, cover: Tensor, box: Tensor, bits: Tensor, strength: float | Tensor
) -> Tensor:
    """Return containers: covers with the residual in the box and nothing changed elsewhere.

    Args:
        method: who makes the residual.
        cover: [B, 3, H, W].
        box: corners of upright squares at whole pixels, [B, 4, 2].
        bits: [B, 30].
        strength: rms of the residual within the box, on the scale 0 to 255; a number, or [B].

    Returns:
        [B, 3, H, W], clipped to [0, 1].
    """
    to_region = homography(box, square(SIDE, box).expand_as(box))
    residual = method.residual(rectify(cover, box, SIDE), bits)
    size = (cover.shape[2], cover.shape[3])
    placed = warp(residual, to_region, size, mode="bicubic", padding="border")
    placed = placed * region_mask(box, size)[:, None]
    pixels = 3 * area(box).clamp_min(1)
    rms = (placed.square().sum(dim=(1, 2, 3)) / pixels).sqrt().clamp_min(1e-6)
    scale = torch.as_tensor(strength, dtype=cover.dtype) / 255 / rms
    return (cover + scale.view(-1, 1, 1, 1) * placed).clamp(0, 1)


def read_message(
    method: Spread | Pimog, photo: Tensor, quad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Rectify and decode in all four turns, and keep the turn that passes the code check.

    Where none passes, the turn in which the reader is surest is kept.

    Args:
        method: whose message it is.
        photo: [B, 3, H, W].
        quad: corners, clockwise from any of the four, [B, 4, 2].

    Returns:
        bits as read [B, 30], the corrected word [B, 30], whether it passes the check [B].
    """
    found = []
    for turn in range(4):
        corners, sure = method.align(photo, quad.roll(-turn, dims=1))
        bits = (method.read(rectify(photo, corners, SIDE)) > 0).float()
        word, passed = decode_message(bits)
        found.append((bits, word, passed, sure + 1e3 * passed))
    bits, word, passed, score = (torch.stack(part) for part in zip(*found, strict=True))
    best, each = score.argmax(dim=0), torch.arange(len(photo), device=photo.device)
    return bits[best, each], word[best, each], passed[best, each]
