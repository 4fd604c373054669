"""NIQE: how far an image is from undisturbed photos, without a reference.

    luminance ─► less its local mean, over its local deviation ─► patches ─► 18 features
        └─► half as large ─► the same ──────────────────────────────────────► 18 features
    mean and covariance of 36 features over patches ─► distance from those of undisturbed photos

The features are the shape of the distribution of such values and of the products of neighbours.
What undisturbed photos give lies in ``niqe.safetensors``; ``benchmarks/niqe.py fit`` makes it, and
the card beside it says of which photos. Another set of photos gives other numbers, so compare with
published ones in order only.

Source: Mittal, Soundararajan, Bovik, Making a completely blind image quality analyzer (2013).
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semsim import zoo

PATCH = 96  #: side of a patch in pixels; half of it on the second scale
LEAST_SIDE = 2 * PATCH  #: of an image: a covariance needs several patches
SHARP = 0.75  #: of undisturbed photos, patches with at least this share of the sharpest one's count
FEATURES = 36
TAPS, SIGMA = 7, 7 / 6  #: of the Gaussian window
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  #: of neighbours, rows and columns
LUMA = (0.299, 0.587, 0.114)
MODEL = Path(__file__).with_name("niqe.safetensors")
TINY = 1e-12  # so that a flat patch has features too


class Pristine(nn.Module):
    """Mean [36] and covariance [36, 36] of the features of undisturbed photos."""

    mean: Tensor
    covariance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES, dtype=torch.float64))
        self.register_buffer("covariance", torch.eye(FEATURES, dtype=torch.float64))


@functools.cache
def pristine() -> Pristine:
    """Return what semsim carries; a damaged file is refused."""
    model = Pristine()
    zoo.load_parts(str(MODEL), {"pristine": model})
    return model


def niqe(image: Tensor, model: Pristine | None = None) -> Tensor:
    """Return the NIQE of each image, [B], lower is better; NaN below 192 pixels a side.

    Args:
        image: [B, 1 or 3, H, W], 0 to 255.
        model: of undisturbed photos; the one that semsim carries by default.
    """
    if min(image.shape[-2:]) < LEAST_SIDE:
        return image.new_full((len(image),), torch.nan, dtype=torch.float64)
    known = pristine() if model is None else model
    return torch.stack([_distance(*moments(features(one)[0]), known) for one in image])


def fit(photos: list[Tensor]) -> Pristine:
    """Return the model of undisturbed photos [3, H, W], 0 to 255: of their sharp patches."""
    found = []
    for photo in photos:
        own, sharpness = features(photo)
        found.append(own[sharpness > SHARP * sharpness.max()])
    model = Pristine()
    mean, covariance = moments(torch.cat(found))
    model.mean.copy_(mean), model.covariance.copy_(covariance)
    return model


def moments(found: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean [36] and covariance [36, 36] of features [patches, 36]."""
    return found.mean(dim=0), torch.cov(found.T)


def _distance(mean: Tensor, covariance: Tensor, model: Pristine) -> Tensor:
    off = mean - model.mean.to(mean)
    shared = (covariance + model.covariance.to(mean)) / 2
    return (off @ torch.linalg.pinv(shared, hermitian=True) @ off).clamp(min=0).sqrt()


def features(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return features [patches, 36] and sharpness [patches] of an image [1 or 3, H, W]."""
    weights = image.new_tensor(LUMA if len(image) == 3 else (1.0,), dtype=torch.float64)
    luma = torch.tensordot(weights, image.double(), 1)
    height, width = (n // PATCH * PATCH for n in luma.shape)
    plane = luma[None, None, :height, :width]
    half = F.interpolate(plane, scale_factor=0.5, mode="bicubic", antialias=True)
    values, deviation = normalised(plane)
    fine = _of_patches(values, PATCH)
    coarse = _of_patches(normalised(half)[0], PATCH // 2)
    sharpness = F.avg_pool2d(deviation, PATCH).flatten()
    return torch.cat([fine, coarse], dim=1), sharpness


def normalised(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Return values less their local mean over their local deviation and 1, and the deviation."""
    mean = _blurred(plane)
    deviation = (_blurred(plane.square()) - mean.square()).abs().sqrt()
    return (plane - mean) / (deviation + 1), deviation


def _blurred(plane: Tensor) -> Tensor:
    at = torch.arange(TAPS, device=plane.device, dtype=plane.dtype) - TAPS // 2
    window = torch.softmax(-at.square() / (2 * SIGMA**2), dim=0)
    wide = F.pad(plane, (TAPS // 2,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(wide, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))


def _of_patches(values: Tensor, side: int) -> Tensor:
    """Return 18 features of each patch of [1, 1, H, W]: [patches, 18]."""
    patches = F.unfold(values, side, stride=side)[0].T.reshape(-1, side, side)
    shape, left, right = asymmetric(patches.flatten(1))
    found = [shape, (left + right) / 2]
    for shift in SHIFTS:  # around the patch's edge as the paper's release does
        product = patches * patches.roll(shift, dims=(1, 2))
        shape, left, right = asymmetric(product.flatten(1))
        mean = (right - left) * torch.exp(torch.lgamma(2 / shape) - torch.lgamma(1 / shape))
        found += [shape, mean, left, right]
    return torch.stack(found, dim=1)


def asymmetric(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return shape and both scales of the asymmetric generalised Gaussian of each row of [P, n].

    By moments; the shape is the nearest of 0.2, 0.201, ..., 10.
    """
    left, right = (
        ((part.square().sum(dim=1) + TINY) / ((part > 0).sum(dim=1) + 1e-3)).sqrt()
        for part in ((-values).clamp(min=0), values.clamp(min=0))
    )
    ratio = left / right
    flatness = (values.abs().mean(dim=1).square() + TINY) / (values.square().mean(dim=1) + TINY)
    wanted = flatness * (ratio**3 + 1) * (ratio + 1) / (ratio.square() + 1).square()
    shapes = torch.arange(200, 10_001, device=values.device, dtype=values.dtype) / 1000
    have = (
        2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes)
    ).exp()
    above = torch.searchsorted(have, wanted.contiguous()).clamp(1, len(have) - 1)
    nearer = (wanted - have[above - 1]) < (have[above] - wanted)
    shape = shapes[above - nearer.long()]
    scale = (0.5 * (torch.lgamma(1 / shape) - torch.lgamma(3 / shape))).exp()
    return shape, left * scale, right * scale
