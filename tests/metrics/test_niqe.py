"""NIQE: its features against other roads, and its order on photos that are disturbed."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor

from semsim.files.weightfile import sha256_of
from semsim.metrics import niqe as method
from semsim.payloads.photos import Photos
from semsim.seeds import stream


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """Photos that semsim carries, [3, 3, 288, 288], 0 to 255; the model has not seen them."""
    payload = Photos(("astronaut", "coffee", "chelsea"), crop=288)
    return torch.stack([payload.pixels(i) for i in range(3)]).double()


@pytest.mark.parametrize("shape", [0.6, 1.0, 2.0])
def test_shape_and_scales_of_drawn_values_are_found(shape: float) -> None:
    rng = np.random.default_rng(1)
    sizes = np.abs(stats.gennorm.rvs(shape, size=(20, 20_000), random_state=rng))
    wide = rng.random(sizes.shape) < 2 / 3  # a side has as much of the density as it is wide
    found = method.asymmetric(torch.from_numpy(np.where(wide, -2 * sizes, sizes)))
    for values, right in zip(found, (shape, 2.0, 1.0), strict=True):
        error = values.std() / math.sqrt(len(values))
        assert abs(values.mean() - right) < 5 * error + 0.0005  # half a step of the grid


def test_normalised_values_are_those_of_another_road(photos: Tensor) -> None:
    plane = photos[:1, :1]
    image = plane[0, 0].numpy()
    mean = ndimage.gaussian_filter(image, 7 / 6, mode="nearest", radius=3)
    square = ndimage.gaussian_filter(image**2, 7 / 6, mode="nearest", radius=3)
    deviation = np.sqrt(np.abs(square - mean**2))
    values, spread = method.normalised(plane)
    # a difference of squares of up to 255 keeps 1e-11 of them, its root 3e-6
    assert np.abs(spread[0, 0].numpy() - deviation).max() < 1e-4
    assert np.abs(values[0, 0].numpy() - (image - mean) / (deviation + 1)).max() < 1e-2


def test_noise_blur_and_jpeg_make_it_worse(photos: Tensor) -> None:
    from PIL import Image

    noise = torch.randn(photos.shape, generator=stream(1, "noise"), dtype=photos.dtype)
    blurred = torch.from_numpy(ndimage.gaussian_filter(photos.numpy(), (0, 0, 2, 2)))
    coded = []
    for photo in photos:
        buffer = io.BytesIO()
        pixels = photo.byte().permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=10)
        coded.append(torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).double())
    clean = method.niqe(photos).mean()
    for worse in ((photos + 25 * noise).clamp(0, 255), blurred, torch.stack(coded)):
        assert method.niqe(worse).mean() > clean + 1


def test_a_model_is_the_mean_of_sharp_patches(photos: Tensor) -> None:
    model = method.fit(list(photos))
    own, sharpness = method.features(photos[0])
    assert own.shape == (9, 36) and sharpness.shape == (9,)
    kept = [found[s > 0.75 * s.max()] for found, s in map(method.features, photos)]
    assert torch.allclose(model.mean, torch.cat(kept).mean(dim=0))


def test_small_images_have_no_value_and_flat_ones_a_bad_one(photos: Tensor) -> None:
    assert method.niqe(photos[:, :, :191]).isnan().all()
    flat = method.niqe(torch.full((1, 3, 192, 192), 127.0))
    assert flat.isfinite().all() and flat > method.niqe(photos).max()
    grey = photos.mean(dim=1, keepdim=True)
    assert torch.allclose(method.niqe(grey), method.niqe(grey.expand(-1, 3, -1, -1)), rtol=1e-6)


def test_the_card_says_where_the_model_comes_from() -> None:
    card = json.loads(method.MODEL.with_suffix(".json").read_text(encoding="utf-8"))
    assert card["sha256"] == sha256_of(method.MODEL)
    assert "BSDS500" in card["data"] and "benchmarks/niqe.py" in card["command"]
