"""Structural similarity at one and at five scales, with a separable window.

Written out because torchmetrics 1.9 also counts places where the window leaves the image, and so
differs from the papers in the third digit.

Source: Wang, Bovik, Sheikh, Simoncelli, Image quality assessment: from error visibility to
structural similarity (2004); Wang, Simoncelli, Bovik, Multiscale structural similarity for image
quality assessment (2003).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TAPS, SIGMA = 11, 1.5  #: the Gaussian window of both papers
K1, K2 = 0.01, 0.03
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  #: of the five scales, finest first
LEAST_SIDE = TAPS * 2 ** (len(WEIGHTS) - 1)  #: pixels, so that the window fits the coarsest scale


def ssim(a: Tensor, b: Tensor, peak: float) -> Tensor:
    """Return the SSIM of each pair, mean over pixels and channels, [B].

    Only places count where the window lies inside the image.

    Args:
        a, b: images [B, C, H, W], at least 11x11 pixels.
        peak: the largest value that a pixel can have.
    """
    structure, contrast = _maps(a, b, peak)
    return structure.mul_(contrast).flatten(1).mean(dim=1)


def ms_ssim(a: Tensor, b: Tensor, peak: float) -> Tensor:
    """Return the MS-SSIM of each pair, [B]; a scale that correlates negatively counts as zero.

    Args:
        a, b: images [B, C, H, W], at least 176x176 pixels.
        peak: the largest value that a pixel can have.
    """
    value = a.new_ones(len(a))
    for scale, weight in enumerate(WEIGHTS):
        luminance, contrast = _maps(a, b, peak)
        if scale == len(WEIGHTS) - 1:
            contrast = luminance * contrast
        value = value * contrast.flatten(1).mean(dim=1).clamp(min=0) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return value


def _maps(a: Tensor, b: Tensor, peak: float) -> tuple[Tensor, Tensor]:
    """Return the luminance term and the contrast-structure term at each pixel."""
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    shift = peak / 2  # moments around mid-grey lose fewer digits in float32
    a, b = a - shift, b - shift
    mu_a, mu_b, aa, bb, ab = _blur(torch.stack([a, b, a * a, b * b, a * b]))
    cross, squares = mu_a * mu_b, mu_a.square() + mu_b.square()
    contrast = (2 * (ab - cross) + c2) / (aa + bb - squares + c2)
    mu_a, mu_b = mu_a + shift, mu_b + shift
    luminance = (2 * mu_a * mu_b + c1) / (mu_a.square() + mu_b.square() + c1)
    return luminance, contrast


def _blur(stack: Tensor) -> Tensor:
    """Filter [5, B, C, H, W] with the Gaussian window, along height and then along width."""
    offset = torch.arange(TAPS, device=stack.device, dtype=stack.dtype) - TAPS // 2
    window = torch.softmax(-offset.square() / (2 * SIGMA**2), dim=0)
    planes = stack.flatten(0, 2).unsqueeze(0)
    count = planes.shape[1]  # one group per plane: on a CPU eight times faster than one per item
    planes = F.conv2d(planes, window.view(1, 1, -1, 1).expand(count, -1, -1, -1), groups=count)
    planes = F.conv2d(planes, window.view(1, 1, 1, -1).expand(count, -1, -1, -1), groups=count)
    return planes.view(*stack.shape[:3], *planes.shape[-2:])
