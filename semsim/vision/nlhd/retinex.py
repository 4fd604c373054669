"""The Retinex model on groups: decomposition, noise, curves, saturation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from semsim.vision.nlhd.groups import Groups, _nearest_rows, _take_rows

EPSILON = 1 / 255  #: one step of 8 bits: keeps the ratio finite in black
NEAREST = 0.8  #: distance to the nearest of the other rows, over sigma, as NLH has it


def decompose(
    image: Tensor, groups: Groups | None = None, limits: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return illumination L and detail D of an image [B, 1, H, W]; without limits, L + D = image.

    L is what the lowest Haar coefficient of every group rebuilds, D what all others do. Transform
    and aggregation are linear, so without limits D is the image less L.

    Args:
        image: one channel, in [0, 1] where the groups are to be found in it.
        groups: similar pixels; found in the image itself where None.
        limits: [R], for each reference the magnitude below which a coefficient counts as noise.
    """
    groups = groups or Groups(image)
    illumination = groups.mean(image)
    if limits is None:
        return illumination, image - illumination

    def shrink(coefficients: Tensor, chunk: slice) -> Tensor:
        kept = coefficients * (coefficients.abs() >= limits[chunk, None, None])
        kept[0, :, :, 0] = 0
        return kept

    return illumination, groups.filter(image, shrink)


@dataclass(frozen=True)
class NoiseLevel:
    """Standard deviations of noise, in units of the image's range [0, 1].

    Args:
        overall: of each image, refined, [B].
        unrefined: the same before refinement, [B].
        local: a map, [B, 1, H, W].
        blocks: of each reference block, [R].
    """

    overall: Tensor
    unrefined: Tensor
    local: Tensor
    blocks: Tensor


def noise_level(image: Tensor, groups: Groups | None = None) -> NoiseLevel:
    """Estimate noise by the distance of each row to the nearest other one, as NLH does.

        sigma = mean of sqrt(d² / m) / 0.8

    Refined, the mean is over blocks whose rows lie as near as noise alone would have them, which
    leaves texture out. Adjacent: all of it; the limit is scaled from m = 16 to any m here.

    Args:
        image: [B, 1, H, W] in [0, 1].
        groups: where blocks alike lie; found in the image itself where None.
    """
    groups = groups or Groups(image)
    squared = [_nearest_distance(rows) for _, rows in groups.cut(image)]
    distance = torch.cat(squared)  # [R, N²], mean over m
    blocks = distance.sqrt().mean(dim=1) / NEAREST
    unrefined = overall = blocks.view(len(image), -1).mean(dim=1)
    mean_square = distance.mean(dim=1).view(len(image), -1)
    for number in range(2):
        level = 255 * overall
        k = 0.95 + 0.05 * (level > 20) + 0.05 * (level > 50)
        limit = overall.square() * (1.74e-4 * 255**2 / 16) * k
        kept = (mean_square <= limit[:, None]).to(blocks)
        sums, count = (kept * blocks.view_as(kept)).sum(dim=1), kept.sum(dim=1)
        again = (count > 0) & (level <= (70 if number else math.inf))
        overall = torch.where(again, sums / count.clamp(min=1), overall)
    return NoiseLevel(overall, unrefined, groups.map(blocks), blocks)


def _nearest_distance(rows: Tensor) -> Tensor:
    """Return the mean squared distance of each row to the nearest other one, [r, N²]."""
    levels = (rows.detach().clamp(0, 1) * 255).round().float()
    nearest = _nearest_rows(levels, 2)[1]
    return (rows - _take_rows(rows, nearest)).square().mean(dim=2)


Fusion = Literal["min", "exp", "log"]


def brighten(illumination: Tensor, gamma: float, alpha: float, fusion: Fusion = "min") -> Tensor:
    """Return the enhanced illumination L' of L in [0, 1].

        L_exp = L^gamma      L_log = ln(1 + alpha L) / ln(1 + alpha)      L' = min(L_exp, L_log)

    Where the curves cross, the logarithm rules below and the power above.
    """
    power = illumination.clamp(0, 1).pow(gamma)
    logarithm = torch.log1p(alpha * illumination.clamp(0, 1)) / math.log1p(alpha)
    if fusion == "min":
        return torch.minimum(power, logarithm)
    return power if fusion == "exp" else logarithm


def saturation(image: Tensor) -> Tensor:
    """Return the HSV saturation [B, 1, H, W] of images [B, 3, H, W]; 0 where black."""
    most, least = image.amax(dim=1, keepdim=True), image.amin(dim=1, keepdim=True)
    return (most - least) / most.clamp(min=torch.finfo(image.dtype).tiny)


def desaturate(image: Tensor, dark: Tensor, groups: Groups, below: float = 0.1) -> Tensor:
    """Pull the saturation of very dark places down to that of their groups; never up.

        S_out = S + w (min(S, κ S_nl) - S),   S_nl the mean of S over the pixel's groups

    Hue and value stay. Inferred: κ = clip(2 mean(dark) / below, 0.4, 1), and w, which falls from 1
    to 0 where the dark image rises from below / 2 to below.

    Args:
        image: after enhancement, [B, 3, H, W].
        dark: illumination before it, [B, 1, H, W].
        groups: those of the dark image.
        below: illumination from which on nothing is changed.
    """
    tiny = torch.finfo(image.dtype).tiny
    before = saturation(image)
    kappa = (2 / below * dark.mean(dim=(1, 2, 3), keepdim=True)).clamp(0.4, 1)
    weight = (2 - 2 / below * dark).clamp(0, 1)
    goal = torch.minimum(before, kappa * groups.mean(before)) / before.clamp(min=tiny)
    value = image.amax(dim=1, keepdim=True)
    return value - (value - image) * torch.lerp(torch.ones_like(goal), goal, weight)
