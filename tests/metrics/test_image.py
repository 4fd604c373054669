"""Image metrics against independent references."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from semsim.metrics.base import Outcome
from semsim.metrics.image import MSSSIM, PSNR, PSNR_CAP_DB, SSIM, MSSSIMdB, PSNROfMSE
from semsim.metrics.ssim import WEIGHTS
from semsim.payloads.photos import Photos
from semsim.seeds import stream


@pytest.fixture(scope="module")
def photos() -> Tensor:
    payload = Photos(resize=200, crop=192)
    return torch.stack([payload[i][0] for i in range(3)])


def noisy(source: Tensor, sigma: float) -> Outcome:
    noise = torch.randn(source.shape, generator=stream(1, "noise"))
    return Outcome(source + sigma * noise, source, source)


def bytes_of(image: Tensor) -> np.ndarray[Any, Any]:
    return (image.clamp(0, 1) * 255).round().byte().numpy()


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.5])
def test_psnr_equals_that_of_scikit_image_on_8_bit_values(photos: Tensor, sigma: float) -> None:
    outcome = noisy(photos, sigma)
    ours = PSNR()(outcome)
    for value, sent, got in zip(ours, photos, outcome.output, strict=True):
        assert float(value) == pytest.approx(
            peak_signal_noise_ratio(bytes_of(sent), bytes_of(got)), abs=1e-4
        )


def test_rounding_the_source_once_for_all_snrs_and_metrics_changes_no_digit(photos: Tensor) -> None:
    kept: dict[str, Tensor] = {}
    for sigma in (0.1, 0.02):
        alone = noisy(photos, sigma)
        shared = Outcome(alone.output, photos, photos, kept=kept)
        for metric in (PSNR(), PSNROfMSE(), SSIM(), MSSSIM()):
            assert torch.equal(metric(shared), metric(Outcome(alone.output, photos, photos)))
    assert torch.equal(kept["link"], (photos * 255).round())


def test_psnr_of_equal_images_is_that_of_rounding_to_8_bits(photos: Tensor) -> None:
    assert pytest.approx(58.92, abs=0.005) == PSNR_CAP_DB
    values = PSNR()(Outcome(photos + 0.4 / 255, photos, photos))  # rounds back to the same bytes
    assert values.tolist() == pytest.approx([PSNR_CAP_DB] * 3)


@given(st.integers(1, 255))
@settings(deadline=None, max_examples=20)
def test_psnr_of_a_constant_error_is_the_textbook_value(step: int) -> None:
    source = torch.zeros(1, 3, 4, 4)
    value = PSNR()(Outcome(source + step / 255, source, source))
    assert float(value) == pytest.approx(20 * math.log10(255 / step), abs=1e-4)


def test_psnr_of_the_mean_mse_never_exceeds_the_mean_psnr(photos: Tensor) -> None:
    sigma = torch.tensor([0.01, 0.1, 0.3]).view(3, 1, 1, 1)
    outcome = noisy(photos, sigma)  # type: ignore[arg-type]
    both, mean = PSNROfMSE(), PSNR()
    of_mean = both.combine(float(both(outcome).mean()))
    assert of_mean < mean.combine(float(mean(outcome).mean())) - 3
    one = Outcome(outcome.output[:1], photos[:1], photos[:1])
    assert both.combine(float(both(one))) == pytest.approx(float(mean(one)), abs=1e-4)


@pytest.mark.parametrize("sigma", [0.02, 0.2])
def test_ssim_equals_that_of_scikit_image(photos: Tensor, sigma: float) -> None:
    outcome = noisy(photos, sigma)
    for value, sent, got in zip(SSIM()(outcome), photos, outcome.output, strict=True):
        reference = structural_similarity(
            bytes_of(sent).astype(np.float64),
            bytes_of(got).astype(np.float64),
            channel_axis=0,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert float(value) == pytest.approx(reference, abs=1e-5)


def reference_ms_ssim(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """MS-SSIM of one plane, from scikit-image's contrast and structure at each scale."""
    from scipy.ndimage import gaussian_filter

    value = 1.0
    for scale, weight in enumerate(WEIGHTS):
        blur = [
            gaussian_filter(m, 1.5, truncate=3.5)[5:-5, 5:-5] for m in (a, b, a * a, b * b, a * b)
        ]
        var_a, var_b = blur[2] - blur[0] ** 2, blur[3] - blur[1] ** 2
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        terms = (2 * (blur[4] - blur[0] * blur[1]) + c2) / (var_a + var_b + c2)
        if scale == 4:
            terms *= (2 * blur[0] * blur[1] + c1) / (blur[0] ** 2 + blur[1] ** 2 + c1)
        value *= terms.mean() ** weight
        a, b = (m.reshape(len(m) // 2, 2, -1, 2).mean(axis=(1, 3)) for m in (a, b))
    return value


@pytest.mark.parametrize("sigma", [0.02, 0.2])
def test_ms_ssim_equals_a_second_way_to_compute_it(photos: Tensor, sigma: float) -> None:
    grey = photos.mean(dim=1, keepdim=True)
    outcome = noisy(grey, sigma)
    for value, sent, got in zip(MSSSIM()(outcome), grey, outcome.output, strict=True):
        pair = [bytes_of(image)[0].astype(np.float64) for image in (sent, got)]
        assert float(value) == pytest.approx(reference_ms_ssim(*pair), abs=1e-5)


def test_ms_ssim_in_db_is_that_of_the_mean(photos: Tensor) -> None:
    metric = MSSSIMdB()
    mean = float(metric(noisy(photos, 0.05)).mean())
    assert metric.combine(mean) == pytest.approx(-10 * math.log10(1 - mean))
    assert (metric.combine(0.0), metric.combine(0.99)) == pytest.approx((0, 20))
    assert metric.combine(1.0) == pytest.approx(60)


def test_equal_images_have_similarity_one_and_more_noise_less(photos: Tensor) -> None:
    for metric in (SSIM(), MSSSIM()):
        values = [metric(noisy(photos, sigma)) for sigma in (0.0, 0.05, 0.2)]
        assert torch.allclose(values[0], torch.ones(3), atol=1e-5)
        assert (values[0] > values[1]).all() and (values[1] > values[2]).all()


def test_images_are_left_as_they_were(photos: Tensor) -> None:
    outcome = noisy(photos, 0.1)
    before = outcome.output.clone(), outcome.source.clone()
    for metric in (PSNR(), SSIM(), MSSSIM()):
        metric(outcome)
    assert torch.equal(outcome.output, before[0]) and torch.equal(outcome.source, before[1])
