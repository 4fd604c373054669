"""Images on another scale are told from images with noise, whatever the noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from semsim.payloads.photos import Photos
from semsim.ranges import check_follows, check_range
from semsim.seeds import stream

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
SCALES = {
    "signed": (lambda x: 2 * x - 1, r"give \(x \+ 1\) / 2"),
    "bytes": (lambda x: 255 * x, "divide them by 255"),
    "ten bits": (lambda x: 1023 * x, "divide them by 1023"),
    "imagenet": (lambda x: (x - MEAN) / STD, r"x \* \[0.229, 0.224, 0.225\] \+ \[0.485"),
    "hounsfield": (lambda x: 3000 * x - 1000, r"0.384 \* \(1 \+ x / 1000\)"),
}


@pytest.fixture(scope="module")
def photos() -> Tensor:
    payload = Photos(resize=64, crop=64)
    return torch.stack([payload[i][0] for i in range(len(payload))])


@pytest.mark.parametrize("scale", SCALES)
def test_another_scale_is_told_with_what_undoes_it(photos: Tensor, scale: str) -> None:
    move, cure = SCALES[scale]
    with pytest.raises(ValueError, match=rf"the payload's images hold values .*{cure}"):
        check_range(move(photos), "the payload's images")
    with pytest.raises(ValueError, match=rf"the receiver's images are about .*{cure}"):
        check_follows(move(photos), photos, "the receiver's images")


@pytest.mark.parametrize("sigma", [0.1, 1.0, 10.0])
def test_noise_that_leaves_the_range_is_no_other_scale(photos: Tensor, sigma: float) -> None:
    noise = torch.randn(photos.shape, generator=stream(1, "noise", sigma))
    check_follows(photos + sigma * noise, photos, "it")
    check_follows(0.5 + sigma * noise, photos, "it")  # nothing of the source is left
    check_follows(torch.full_like(photos, 0.5) + noise, torch.full_like(photos, 0.3), "it")


def test_a_contrast_within_the_range_is_left_alone(photos: Tensor) -> None:
    check_follows((3 * photos - 1).clamp(0, 1), photos, "it")
    check_range(photos + 5e-4, "it")
    with pytest.raises(ValueError, match="NaN or infinity"):
        check_range(torch.tensor([0.1, float("nan")]), "it")
