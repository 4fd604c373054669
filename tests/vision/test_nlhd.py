"""NLHD as an algorithm: what its text says, each checked by itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from nlhd_loop import haar, inverse_haar, nlhd
from torch import Tensor

from semsim.payloads.photos import Photos
from semsim.seeds import stream
from semsim.vision.nlhd import (
    EPSILON,
    Enhance,
    Grouping,
    Groups,
    brighten,
    darken,
    decompose,
    desaturate,
    haar_matrix,
    noise_level,
    saturation,
)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
FAST = Grouping(step=8)


def photo(side: int = 64, scale: float = 1.0) -> Tensor:
    """A real photo, [1, 3, side, side]."""
    return scale * Photos(["astronaut"], resize=side, crop=side)[0][0][None]


def grey(side: int = 64, scale: float = 1.0) -> Tensor:
    return photo(side, scale).amax(dim=1, keepdim=True)


def noisy_flat(level: float, sigma: float, side: int = 64) -> Tensor:
    noise = torch.randn(1, 1, side, side, generator=stream(1, "flat", sigma))
    return level + sigma * noise


def test_the_haar_matrix_is_orthonormal_and_does_what_lifting_does() -> None:
    values = np.random.default_rng(1).normal(size=(5, 16))
    matrix = haar_matrix(16).numpy()
    assert np.allclose(values @ matrix.T, haar(values), atol=1e-12)
    assert np.allclose(inverse_haar(haar(values)), values, atol=1e-12)
    assert np.allclose(matrix @ matrix.T, np.eye(16), atol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"m": 8, "q": 2, "n": 5, "window": 15, "step": 3}])
@pytest.mark.parametrize("device", DEVICES)
def test_a_loop_over_blocks_and_rows_gives_the_same(device: str, settings: dict[str, int]) -> None:
    image = photo(32, 0.3).double().to(device)
    guide, channel = image.amax(dim=1, keepdim=True), image[:, :1]
    names = {"m": "blocks", "q": "rows", "n": "block"}
    groups = Groups(guide, Grouping(**{names.get(k, k): v for k, v in settings.items()}))
    limits = torch.full((len(groups),), 0.02, dtype=torch.float64, device=device)
    light, detail = decompose(channel, groups, limits)
    expected = nlhd(channel[0, 0].cpu().numpy(), guide[0, 0].cpu().numpy(), limit=0.02, **settings)
    # both are float64; a few hundred sums of values below 1 lose no more than 1e-12
    assert np.abs(light[0, 0].cpu().numpy() - expected[0]).max() < 1e-12
    assert np.abs(detail[0, 0].cpu().numpy() - expected[1]).max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_illumination_and_detail_add_up_to_the_image(dtype: torch.dtype) -> None:
    image = grey(scale=0.3).to(dtype)
    groups = Groups(image, FAST)

    def without_lowest(coefficients: Tensor, chunk: slice) -> Tensor:
        rest = coefficients.clone()
        rest[0, :, :, 0] = 0
        return rest

    light, detail = groups.mean(image), groups.filter(image, without_lowest)
    tolerance = 32 * torch.finfo(dtype).eps  # sums of some hundred values below 0.3
    assert (light + detail - image).abs().max() < tolerance
    ratio = 1 + detail / (light + EPSILON)
    assert ((light + EPSILON) * ratio - EPSILON - image).abs().max() < tolerance
    log_light, log_ratio = decompose((image + EPSILON).log(), groups)
    assert ((log_light + log_ratio).exp() - EPSILON - image).abs().max() < tolerance


def test_illumination_uses_the_lowest_coefficient_alone() -> None:
    image = grey(scale=0.3).double()
    groups = Groups(image, FAST)

    def only_lowest(coefficients: Tensor, chunk: slice) -> Tensor:
        lowest = torch.zeros_like(coefficients)
        lowest[0, :, :, 0] = coefficients[0, :, :, 0]
        return lowest

    light = groups.mean(image)
    assert (groups.filter(image, only_lowest) - light).abs().max() < 1e-12
    assert (light - image).abs().max() > 0.01  # and it is not simply the image


def test_illumination_of_a_constant_is_constant() -> None:
    light, detail = decompose(torch.full((1, 1, 40, 40), 0.2, dtype=torch.float64))
    assert (light - 0.2).abs().max() < 1e-14 and detail.abs().max() < 1e-14


def test_illumination_of_a_noisy_constant_has_little_noise_left() -> None:
    sigma = 0.02
    light, _ = decompose(noisy_flat(0.3, sigma), Groups(noisy_flat(0.3, sigma), FAST))
    # a mean of 4 rows of 16 blocks: 1/8 where groups were random; matching picks what is alike,
    # and its choice keeps some of the noise
    assert light.std() < sigma / 3


def test_a_step_stays_a_step_in_the_illumination() -> None:
    image = torch.full((1, 1, 48, 48), 0.1)
    image[..., 21:] = 0.5
    noise = 0.01 * torch.randn(image.shape, generator=stream(1, "step"))
    light, _ = decompose(image + noise, Groups(image + noise, FAST))
    height = (light[..., 21] - light[..., 20]).mean()
    assert height == pytest.approx(0.4, abs=0.02)  # a Gaussian of 2 pixels would leave 0.08
    assert (light - image).abs().max() < 0.05  # no halo either


@pytest.mark.parametrize(("gamma", "alpha", "crossing"), [(0.4, 30.0, 0.091), (0.5, 20.0, 0.046)])
def test_the_logarithm_rules_below_the_crossing_and_the_power_above(
    gamma: float, alpha: float, crossing: float
) -> None:
    light = torch.linspace(0, 1, 1001, dtype=torch.float64)
    power, log = (brighten(light, gamma, alpha, f) for f in ("exp", "log"))  # type: ignore[arg-type]
    out = brighten(light, gamma, alpha)
    below, above = (light > 0) & (light < crossing - 0.001), (light > crossing + 0.001)
    above &= light < 1
    assert torch.equal(out[below], log[below]) and (log < power)[below].all()
    assert torch.equal(out[above], power[above]) and (power < log)[above].all()
    assert (out.diff() > 0).all() and out[0] == 0 and out[-1] == 1


def test_both_curves_rule_somewhere_on_dark_photos_with_the_defaults() -> None:
    task, dark = Enhance(), photo(scale=0.3)
    light, _ = decompose(dark.amax(dim=1, keepdim=True))
    power, log = (brighten(light, task.gamma, task.alpha, f) for f in ("exp", "log"))  # type: ignore[arg-type]
    share = (log < power).float().mean()
    assert 0.1 < share < 0.9


@pytest.mark.parametrize("sigma", [5, 10, 20, 30])
def test_the_noise_of_flat_patches_is_found_within_five_percent(sigma: int) -> None:
    flat = noisy_flat(0.5, sigma / 255, side=128)
    found = noise_level(flat, Groups(flat, FAST))
    assert 255 * float(found.unrefined) == pytest.approx(sigma, rel=0.05)
    # refinement keeps the quieter blocks, also where all are alike: noise alone loses up to 7 %
    assert 0.93 * sigma < 255 * float(found.overall) <= 255 * float(found.unrefined)
    assert 255 * float(found.local.mean()) == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "rocket"])
def test_refinement_lowers_the_estimate_on_photos(name: str) -> None:
    image = Photos([name], resize=96, crop=96)[0][0][None].amax(dim=1, keepdim=True)
    noise = 10 / 255 * torch.randn(image.shape, generator=stream(1, name))
    found = noise_level((image + noise).clamp(0, 1), Groups((image + noise).clamp(0, 1), FAST))
    truth = 10 / 255
    assert truth / 2 < found.overall < found.unrefined


def test_the_local_level_is_higher_where_there_is_more_noise() -> None:
    left, right = noisy_flat(0.5, 5 / 255), noisy_flat(0.5, 20 / 255)
    both = torch.cat([left[..., :32], right[..., 32:]], dim=3)
    local = 255 * noise_level(both, Groups(both, Grouping(window=15, step=8))).local
    assert local[..., :16].mean() == pytest.approx(5, rel=0.15)
    assert local[..., -16:].mean() == pytest.approx(20, rel=0.15)


@pytest.mark.parametrize("colour", ["hsv", "rgb"])
def test_suppression_takes_two_thirds_of_the_noise_of_a_dark_flat_area(colour: Any) -> None:
    dark = noisy_flat(0.05, 0.01).expand(-1, 3, -1, -1).clamp(0, 1)
    plain, clean = (
        Enhance(colour=colour, threshold=t, desaturate_below=0, step=8)(dark) for t in (0.0, 2.7)
    )
    assert clean.std() < plain.std() / 3
    assert clean.mean() == pytest.approx(float(plain.mean()), rel=0.05)


@pytest.mark.parametrize("colour", ["hsv", "rgb"])
def test_suppression_leaves_a_bright_clean_image_alone(colour: Any) -> None:
    ramp = torch.linspace(0.4, 0.9, 64)
    bright = (ramp[:, None] + 0.1 * torch.sin(ramp * 40)).expand(1, 3, -1, -1)
    plain, clean = (Enhance(colour=colour, threshold=t, step=8)(bright) for t in (0.0, 2.7))
    assert (plain - clean).abs().max() <= 1 / 255


def test_the_saturation_module_never_adds_saturation_and_keeps_hue_and_value() -> None:
    dark = darken(photo()[0], stream(1, "dark"), darkness=(0.1, 0.1))[None].double()
    groups = Groups(dark.amax(dim=1, keepdim=True), FAST)
    before = dark.sqrt()
    after = desaturate(before, groups.mean(dark.amax(dim=1, keepdim=True)), groups)
    assert (saturation(after) <= saturation(before) + 1e-12).all()
    assert saturation(after).mean() < 0.9 * saturation(before).mean()
    assert torch.allclose(after.amax(dim=1), before.amax(dim=1))
    # hue is where the middle channel lies between the largest and the least
    chroma = [x.amax(dim=1, keepdim=True) - x for x in (before, after)]
    cross = chroma[0] * chroma[1].amax(dim=1, keepdim=True)
    assert torch.allclose(cross, chroma[1] * chroma[0].amax(dim=1, keepdim=True), atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("colour", ["hsv", "rgb"])
def test_a_batch_gives_what_its_images_give_alone(device: str, colour: Any) -> None:
    images = torch.cat([photo(48, 0.2), photo(48, 0.7).flip(3), noisy_flat(0.1, 0.02, 48)
                        .expand(-1, 3, -1, -1)]).to(device)  # fmt: skip
    task = Enhance(colour=colour, step=8)
    together, alone = task(images), torch.cat([task(x[None]) for x in images])
    assert together.device.type == device
    assert (together - alone).abs().max() < 1e-6
    assert together.min() >= 0 and together.max() <= 1


def test_groups_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    image = grey(48, 0.3)
    whole = decompose(image, Groups(image, FAST))[0]
    monkeypatch.setattr("semsim.vision.nlhd.groups.CHUNK", 7)
    assert torch.allclose(decompose(image, Groups(image, FAST))[0], whole, atol=1e-6)


def test_every_pixel_has_a_group_in_images_of_any_size() -> None:
    for height, width in ((17, 40), (33, 21), (160, 31)):
        image = torch.rand(1, 1, height, width, generator=stream(1, height))
        light, detail = decompose(image, Groups(image, Grouping(window=15, step=7)))
        assert light.isfinite().all() and (light + detail - image).abs().max() < 1e-6


@pytest.mark.parametrize(
    "options", [{"fusion": "exp"}, {"fusion": "log"}, {"reflectance": "log"}, {"rows": 1}]
)
def test_every_option_brightens_a_dark_photo(options: dict[str, Any]) -> None:
    bright, dark = photo(48), photo(48, 0.15)
    out = Enhance(step=8, **options)(dark)
    assert (out - bright).square().mean() < 0.5 * (dark - bright).square().mean()


def test_black_stays_black() -> None:
    assert Enhance(step=8)(torch.zeros(1, 3, 32, 32)).abs().max() == 0
    assert Enhance(step=8, colour="hsv")(torch.zeros(1, 3, 32, 32)).abs().max() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.5}, "gamma < 1"),
        ({"fusion": "max"}, "min, exp, log"),
        ({"colour": "lab"}, "rgb, hsv"),
        ({"threshold": -1.0}, "0 .off. or more"),
        ({"rows": 3}, "power of two up to 64"),
        ({"block": 12}, "2 to 11"),
        ({"window": 38}, "odd"),
        ({"step": 9}, "without a group"),
        ({"at": "relay"}, "sender, receiver, none"),
    ],
)
def test_void_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Enhance(**options)


def test_images_that_no_group_fits_into_are_refused() -> None:
    with pytest.raises(ValueError, match="fewer than blocks: 16"):
        Enhance()(torch.zeros(1, 3, 10, 10))
    with pytest.raises(ValueError, match=r"\[B, 3, H, W\]"):
        Enhance()(torch.zeros(3, 64, 64))
    with pytest.raises(ValueError, match="one channel"):
        Groups(torch.zeros(1, 3, 64, 64))


def test_the_place_decides_where_the_image_is_processed() -> None:
    dark = photo(48, 0.2)
    bright = Enhance(step=8).process(dark)
    for at, sent, output in (("sender", bright, dark), ("receiver", dark, bright)):
        task = Enhance(at, step=8)  # type: ignore[arg-type]
        assert torch.equal(task.prepare(dark), sent) and torch.equal(task(dark), output)
    assert torch.equal(Enhance("none")(dark), dark)
    assert math.isclose(Enhance("none").prepare(dark).mean(), dark.mean())
