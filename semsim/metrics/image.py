"""Metrics of images [B, C, H, W] in [0, 1], all taken on 8-bit values as a viewer sees them.

Those of the link compare what arrives with what was sent; those named ``task_`` compare what the
task makes of it with the payload's reference.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from channels.units import linear_to_db
from semsim.metrics.base import Metric, Outcome, Pair
from semsim.metrics.niqe import LEAST_SIDE as LEAST_NIQE
from semsim.metrics.niqe import niqe
from semsim.metrics.ssim import LEAST_SIDE, TAPS, ms_ssim, ssim
from semsim.ranges import check_follows, check_range, clip

#: mean squared error of rounding to 8 bits, in units of the last bit squared: nothing smaller is
#: told from it, so an image without any error counts as PSNR_CAP_DB
ROUNDING_MSE = 1 / 12
PSNR_CAP_DB = linear_to_db(255**2 / ROUNDING_MSE)  # 58.92 dB
LOST_MSE = 127.5**2  #: of mid-grey against black and white: no guess need be worse


class PSNR(Metric):
    """Mean over images of the PSNR of each, on 8-bit values after clipping.

    PSNR = 10 log10(255^2 / MSE), at most 58.92 dB (MSE at least that of rounding, 1/12)
    """

    name, unit = "psnr", "dB"
    worst = linear_to_db(255**2 / LOST_MSE)  # 6.02 dB
    judges: Pair = "link"

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the PSNR of each image in dB, [B]."""
        return _psnr_db(_mse(*images(outcome, self.name, of=self.judges)))


class TaskPSNR(PSNR):
    """PSNR of what the task makes of the estimate, against the payload's reference image."""

    name, label, judges = "task_psnr", "PSNR of the task", "task"


class PSNROfMSE(Metric):
    """PSNR of the MSE over all images: never above psnr (Jensen), ruled by the worst images."""

    name, label, unit = "psnr_of_mse", "PSNR of the mean MSE", "dB"
    judges: Pair = "link"
    worst = LOST_MSE

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the MSE of each image in units of the last bit squared, [B]."""
        return _mse(*images(outcome, self.name))

    def combine(self, mean: float) -> float:
        """Return the PSNR in dB that belongs to a mean MSE; falls as the MSE grows."""
        return float(_psnr_db(torch.tensor(mean, dtype=torch.float64)))


class SSIM(Metric):
    """Structural similarity, mean over pixels and channels."""

    name = "ssim"
    worst = 0.0
    judges: Pair = "link"

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the SSIM of each image, [B]."""
        return ssim(*images(outcome, self.name, TAPS, self.judges), peak=255.0)


class TaskSSIM(SSIM):
    """SSIM of what the task makes of the estimate, against the payload's reference image."""

    name, label, judges = "task_ssim", "SSIM of the task", "task"


class MSSSIM(Metric):
    """Multi-scale structural similarity, five scales."""

    name, label = "ms_ssim", "MS-SSIM"
    judges: Pair = "link"
    worst = 0.0

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the MS-SSIM of each image, [B]."""
        return ms_ssim(*images(outcome, self.name, LEAST_SIDE), peak=255.0)


class MSSSIMdB(MSSSIM):
    """Mean MS-SSIM as -10 log10(1 - x), so that differences near 1 can be seen."""

    name, unit = "ms_ssim_db", "dB"

    def combine(self, mean: float) -> float:
        """Return the mean MS-SSIM in dB, at most 60 dB."""
        rest = torch.tensor(1 - mean, dtype=torch.float64).clamp(min=1e-6)  # float32 tells no more
        return -float(linear_to_db(rest))


class NIQE(Metric):
    """How far what the task makes is from undisturbed photos, with no reference: 0 is like them.

    A flat image, such as the mid-grey of a lost one, gives about 573 and so rules a mean.
    """

    name, label = "niqe", "NIQE"
    better: Literal["higher", "lower"] = "lower"

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the NIQE of each image, [B]."""
        image = outcome.output
        if image.dim() != 4 or image.shape[1] not in (1, 3):
            raise ValueError(
                "niqe looks at images [B, 1 or 3, H, W], but the task gives "
                f"{list(image.shape[1:])} per item; use a task that makes images"
            )
        if min(image.shape[-2:]) < LEAST_NIQE:
            raise ValueError(
                f"niqe needs images of at least {LEAST_NIQE}x{LEAST_NIQE} pixels, got "
                f"{image.shape[-2]}x{image.shape[-1]}; use psnr or ssim instead"
            )
        _check_scale(image, outcome)
        return niqe(round_8bit(image))


def _check_scale(image: Tensor, outcome: Outcome) -> None:
    """Refuse images on another scale than that of the payload's reference, or else of what is sent.

    Of images of another size or number of channels than both, nothing is known.
    """
    of_task = outcome.target.shape == image.shape
    like = outcome.target if of_task else outcome.source
    if like.dim() == 4 and like.shape[1] == image.shape[1]:
        check_range(like, f"the {'reference' if of_task else 'sent'} images")
        resized = F.interpolate(like.to(torch.float32), image.shape[-2:])
        check_follows(image, resized, "the task's images")


def round_8bit(image: Tensor) -> Tensor:
    """Return an image in [0, 1] clipped and rounded to 0 .. 255, still float32."""
    return clip(image.detach().to(torch.float32)).mul_(255).round_()


def images(outcome: Outcome, name: str, side: int = 1, of: Pair = "link") -> tuple[Tensor, Tensor]:
    """Return two images to compare, in 0 .. 255, or raise ValueError where there are none.

    Of the link: what arrived and what was sent; what arrived is the estimate, whatever the task
    makes of it (the output where no link is known). Of the task: its output and the payload's
    target. The second is rounded once for all metrics and SNRs; the first is new each time.

    Both must be images in [0, 1], which is looked at here, and an estimate that noise has carried
    beyond is clipped. The frames of a clip [B, T, C, H, W] count as channels: a metric is then of
    all of them together.

    Args:
        outcome: the batch.
        name: the metric that asks.
        side: smallest height and width that it can work on, in pixels.
        of: link or task.
    """
    if of == "task":
        image, reference = outcome.output, outcome.target
        _check_task(image, reference, name)
    else:
        link = outcome.transmission
        image, reference = outcome.output if link is None else link.estimate, outcome.source
        _check_link(image, reference, name)
    image, reference = (x.flatten(1, 2) if x.dim() == 5 else x for x in (image, reference))
    if min(reference.shape[-2:]) < side:
        raise ValueError(
            f"{name} needs images of at least {side}x{side} pixels, got "
            f"{reference.shape[-2]}x{reference.shape[-1]}; use "
            f"{'psnr' if side <= TAPS else 'ssim'} instead"
        )
    if of not in outcome.kept:
        check_range(reference, f"the {'reference' if of == 'task' else 'sent'} images")
        check_follows(image, reference, f"the {'task' if of == 'task' else 'receiver'}'s images")
        # in the memory order of the image, or subtracting them is slow
        like = torch.empty_like(image, dtype=torch.float32)
        outcome.kept[of] = like.copy_(round_8bit(reference))
    return round_8bit(image), outcome.kept[of]


def _check_link(arrived: Tensor, source: Tensor, name: str) -> None:
    if source.dim() not in (4, 5):
        raise ValueError(
            f"{name} compares images [B, C, H, W], but the payload's items are "
            f"{list(source.shape[1:])}; for bits use ber or bler"
        )
    if arrived.shape != source.shape:
        raise ValueError(
            f"{name} compares what arrives with the image sent, {list(source.shape[1:])} per item, "
            f"got {list(arrived.shape[1:])}; use a receiver of images, or another metric"
        )


def _check_task(output: Tensor, target: Tensor, name: str) -> None:
    if target.dim() not in (4, 5) or output.shape != target.shape:
        raise ValueError(
            f"{name} compares the image that the task makes, {list(output.shape[1:])} per item, "
            f"with the payload's reference, got {list(target.shape[1:])}; use a payload with "
            "reference images and a task that makes images, or psnr, which judges the link"
        )


def _mse(image: Tensor, reference: Tensor) -> Tensor:
    """Return the MSE of each image, [B]; overwrites ``image``."""
    return image.sub_(reference).square_().mean(dim=(1, 2, 3))


def _psnr_db(mse: Tensor) -> Tensor:
    return linear_to_db(255**2 / mse.clamp(min=ROUNDING_MSE))
