"""Metrics of images [B, C, H, W] in [0, 1], all taken on 8-bit values as a viewer sees them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from channels.units import linear_to_db
from semsim.metrics.base import Outcome
from semsim.metrics.ssim import LEAST_SIDE, TAPS, ms_ssim, ssim

#: mean squared error of rounding to 8 bits, in units of the last bit squared: nothing smaller is
#: told from it, so an image without any error counts as PSNR_CAP_DB
ROUNDING_MSE = 1 / 12
PSNR_CAP_DB = linear_to_db(255**2 / ROUNDING_MSE)  # 58.92 dB


class PSNR:
    """Mean over images of the PSNR of each, on 8-bit values after clipping.

    PSNR = 10 log10(255^2 / MSE), at most 58.92 dB (MSE at least that of rounding, 1/12)
    """

    name, unit = "psnr", "dB"
    better: Literal["higher", "lower"] = "higher"

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the PSNR of each image in dB, [B]."""
        return _psnr_db(mse_8bit(outcome, self.name))

    def combine(self, mean: float) -> float:
        """Return the mean itself."""
        return mean


class PSNROfMSE:
    """PSNR of the MSE over all images: never above psnr (Jensen), ruled by the worst images."""

    name, unit = "psnr_of_mse", "dB"
    better: Literal["higher", "lower"] = "higher"

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the MSE of each image in units of the last bit squared, [B]."""
        return mse_8bit(outcome, self.name)

    def combine(self, mean: float) -> float:
        """Return the PSNR in dB that belongs to a mean MSE; falls as the MSE grows."""
        return float(_psnr_db(torch.tensor(mean, dtype=torch.float64)))


class SSIM:
    """Structural similarity, mean over pixels and channels."""

    name, unit = "ssim", ""
    better: Literal["higher", "lower"] = "higher"

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the SSIM of each image, [B]."""
        return ssim(*images(outcome, self.name, side=TAPS), peak=255.0)

    def combine(self, mean: float) -> float:
        """Return the mean itself."""
        return mean


class MSSSIM:
    """Multi-scale structural similarity, five scales."""

    name, unit = "ms_ssim", ""
    better: Literal["higher", "lower"] = "higher"

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the MS-SSIM of each image, [B]."""
        return ms_ssim(*images(outcome, self.name, side=LEAST_SIDE), peak=255.0)

    def combine(self, mean: float) -> float:
        """Return the mean itself."""
        return mean


class MSSSIMdB(MSSSIM):
    """Mean MS-SSIM as -10 log10(1 - x), so that differences near 1 can be seen."""

    name, unit = "ms_ssim_db", "dB"

    def combine(self, mean: float) -> float:
        """Return the mean MS-SSIM in dB, at most 60 dB."""
        rest = torch.tensor(1 - mean, dtype=torch.float64).clamp(min=1e-6)  # float32 tells no more
        return -float(linear_to_db(rest))


def round_8bit(image: Tensor) -> Tensor:
    """Return an image in [0, 1] clipped and rounded to 0 .. 255, still float32."""
    return image.detach().to(torch.float32).clamp(0, 1).mul_(255).round_()


def mse_8bit(outcome: Outcome, name: str) -> Tensor:
    """Return the MSE of each image in units of the last bit squared, [B]."""
    output, source = images(outcome, name)
    return output.sub_(source).square_().mean(dim=(1, 2, 3))


def images(outcome: Outcome, name: str, side: int = 1) -> tuple[Tensor, Tensor]:
    """Return output and source in 0 .. 255, or raise ValueError where they are no pair of images.

    Where the task's output is no image (logits of a class), it is the estimate that the task saw.
    The source is rounded once for all metrics and SNRs; the output is a new tensor each time.

    Args:
        outcome: the batch.
        name: the metric that asks.
        side: smallest height and width that it can work on, in pixels.
    """
    output, source = outcome.output, outcome.source
    if source.dim() != 4:
        raise ValueError(
            f"{name} compares images [B, C, H, W], but the payload's items are "
            f"{list(source.shape[1:])}; for bits use ber or bler"
        )
    if output.shape != source.shape and outcome.transmission is not None:
        output = outcome.transmission.estimate
    if output.shape != source.shape:
        raise ValueError(
            f"{name} compares what arrives with the image sent, {list(source.shape[1:])} per item, "
            f"got {list(output.shape[1:])}; use a receiver of images, or another metric"
        )
    if min(source.shape[-2:]) < side:
        raise ValueError(
            f"{name} needs images of at least {side}x{side} pixels, got "
            f"{source.shape[-2]}x{source.shape[-1]}; use {'psnr' if side <= 11 else 'ssim'} instead"
        )
    if "source_8bit" not in outcome.kept:
        # in the memory order of the output, or subtracting them is slow
        like = torch.empty_like(output, dtype=torch.float32)
        outcome.kept["source_8bit"] = like.copy_(round_8bit(source))
    return round_8bit(output), outcome.kept["source_8bit"]


def _psnr_db(mse: Tensor) -> Tensor:
    return linear_to_db(255**2 / mse.clamp(min=ROUNDING_MSE))
