"""Metrics of brightened photos against a reference."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from semsim.metrics.base import Metric, Outcome
from semsim.metrics.image import TaskPSNR, images

PIXELS = 1024  #: compared with all others at once, so that memory stays small


class MatchedPSNR(TaskPSNR):
    """PSNR of the task after one gain has made the image's mean that of the reference.

    Plain PSNR of brightened images mostly says how far the brightness is off.
    """

    name, label = "matched_psnr", ""

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the PSNR of each image in dB, [B]."""
        image, _ = matched(*images(outcome, self.name, of="task"))
        return super().__call__(replace(outcome, output=image / 255))


class FlatNoise(Metric):
    """Noise where the reference is flat: standard deviation of grey, in units of the last bit.

    Mean over the flattest fifth of the reference's blocks of 8x8 pixels, after the gain of
    :class:`MatchedPSNR`, or a dark image would look clean.
    """

    name = "flat_noise"
    better = "lower"

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the standard deviation of each image, [B]."""
        pair = matched(*images(outcome, self.name, 8, of="task"))
        spread, flatness = (_block_std(image.mean(dim=1)) for image in pair)
        fifth = flatness.argsort(dim=1)[:, : math.ceil(flatness.shape[1] / 5)]
        return spread.gather(1, fifth).mean(dim=1)


class LightnessOrder(Metric):
    """Lightness order error: share of pairs of pixels whose order differs from the reference's.

    Lightness is max(R, G, B); the pixels are a grid of about 50 x 50.

    Source: Wang, Zheng, Hu, Li, Naturalness preserved enhancement algorithm for non-uniform
    illumination images (2013), where it is counted against the dark input.
    """

    name = "lightness_order"
    better = "lower"
    worst = 0.5

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the share for each image, [B]."""
        return lightness_order(*images(outcome, self.name, of="task"))


def matched(image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Return an image [B, 3, H, W] in 0 .. 255 with the mean of the reference, and that."""
    means = (x.mean(dim=(1, 2, 3), keepdim=True) for x in (reference, image.clamp(min=1e-3)))
    return (image * (next(means) / next(means))).clamp(max=255), reference


def lightness_order(image: Tensor, reference: Tensor) -> Tensor:
    """Return the share of pixel pairs that two images [B, 3, H, W] order differently, [B]."""
    stride = max(1, min(image.shape[2:]) // 50)
    grids = (x[:, :, ::stride, ::stride].amax(dim=1).flatten(1) for x in (image, reference))
    return torch.stack([_disordered(a, b) for a, b in zip(*grids, strict=True)])


def _disordered(a: Tensor, b: Tensor) -> Tensor:
    """Return the share of pairs of values that a and b [N] order differently; some at once."""
    some = zip(a.split(PIXELS), b.split(PIXELS), strict=True)
    wrong = [((p[:, None] >= a) != (q[:, None] >= b)).sum() for p, q in some]
    return torch.stack(wrong).sum() / len(a) ** 2


def _block_std(grey: Tensor) -> Tensor:
    """Return the standard deviation in each block of 8x8 pixels, [B, blocks]."""
    blocks = grey.unfold(1, 8, 8).unfold(2, 8, 8).flatten(3)
    return blocks.std(dim=3, correction=0).flatten(1)
