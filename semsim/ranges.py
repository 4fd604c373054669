"""The range of images: [0, 1]. Checked where images come in, clipped where they are judged.

Images in [-1, 1], in 0 to 255 or normalised for a network lose a few decibels and say nothing. What
comes in is therefore compared with the contract, and what a receiver makes of it with what was
sent: the slope of the estimate over the source is at most about 1, whatever the noise.
"""

from __future__ import annotations

import math

from torch import Tensor

SLACK = 1e-3  #: a resampled or decoded image may leave [0, 1] by so much
STEEP = 1.5  #: no estimate in [0, 1] follows its source with a larger slope; [-1, 1] has 2
_NORMALISED = "x * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406] where it is that of ImageNet"


def clip(image: Tensor) -> Tensor:
    """Return an image within [0, 1]: the one place where values are cut off."""
    return image.clamp(0, 1)


def check_range(images: Tensor, whose: str) -> None:
    """Raise ValueError unless all values lie in [0, 1]; the sentence says what to multiply with.

    Args:
        images: any shape, no NaN.
        whose: the beginning of the sentence, such as "the payload's images".
    """
    if not images.numel():
        return
    low, high = (float(end) for end in images.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{whose} hold NaN or infinity; images lie in [0, 1]")
    if low < -SLACK or high > 1 + SLACK:
        raise ValueError(
            f"{whose} hold values from {low:.4g} to {high:.4g}, and images lie in [0, 1]; "
            f"{_cure(low, high)}"
        )


def check_follows(estimate: Tensor, source: Tensor, whose: str) -> None:
    """Raise ValueError where an estimate is its source on another scale, as [-1, 1] or 0 to 255.

        estimate = slope * source + rest,  slope by least squares, rest taken as noise

    Noise, however strong, leaves the slope alone: it is refused above 1.5 by five of its standard
    errors, and only where values lie outside [0, 1].

    Args:
        estimate, source: images of one shape, the source in [0, 1].
        whose: the beginning of the sentence, such as "the receiver's images".
    """
    low, high = (float(end) for end in estimate.aminmax())
    if not (low < -SLACK or high > 1 + SLACK) or not math.isfinite(high - low):
        return
    slope, offset, error = _line(estimate, source)
    if slope - 5 * error > STEEP:
        raise ValueError(
            f"{whose} are about {slope:.3g} * source {offset:+.3g}, from {low:.4g} to {high:.4g}, "
            f"and images lie in [0, 1]; {_cure(low, high)}"
        )


def _line(estimate: Tensor, source: Tensor) -> tuple[float, float, float]:
    """Return slope and offset of the estimate over the source, and the slope's standard error."""
    y, x = estimate.detach().double().flatten(), source.detach().double().flatten()
    off = x - x.mean()
    energy = float(off.square().sum())
    if energy < 1e-6 * len(x):  # a flat image tells no slope
        return 0.0, 0.0, 0.0
    slope = float(off @ y) / energy
    rest = y - y.mean() - slope * off
    error = math.sqrt(float(rest.square().sum()) / max(len(x) - 2, 1) / energy)
    return slope, float(y.mean() - slope * x.mean()), error


def _cure(low: float, high: float) -> str:
    """Say how values of this range become images in [0, 1]."""
    if low >= 0:
        white = next((w for w in (255, 1023, 4095, 65535) if high <= w + 0.5), None)
        return f"divide them by {white}" if white else "divide them by their white"
    if low >= -1.05 and high <= 1.05:
        return "give (x + 1) / 2"
    if low >= -5 and high <= 5:
        return f"undo the normalisation, x * std + mean: {_NORMALISED}"
    if low >= -5000 and high > 100:
        return "of Hounsfield units give 0.384 * (1 + x / 1000), clipped, as 0.5 per cm is white"
    return "give (x - black) / (white - black)"
