"""Low-light payload, its folders, and the metrics that judge what is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from channels import AWGN
from semsim import Stop, evaluate, spec, stream
from semsim.metrics.base import Outcome
from semsim.metrics.image import TaskPSNR
from semsim.vision.nlhd import (
    Enhance,
    FlatNoise,
    LightnessOrder,
    LowLight,
    MatchedPSNR,
    darken,
    lightness_order,
)

SIDE = 48


def write(folder: Path, names: str, seed: int, shape: tuple[int, int] = (40, 60)) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for name in names:
        pixels = rng.integers(0, 256, (*shape, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")


@pytest.fixture
def lol(tmp_path: Path) -> Path:
    for n, (split, names) in enumerate({"our485": "abc", "eval15": "de"}.items()):
        write(tmp_path / split / "low", names, 2 * n)
        write(tmp_path / split / "high", names, 2 * n + 1)
    return tmp_path


def test_bundled_photos_are_darkened_by_index_and_seed() -> None:
    payload, same = (LowLight(resize=SIDE, crop=SIDE, count=7, seed=3) for _ in range(2))
    other = LowLight(resize=SIDE, crop=SIDE, count=7, seed=4)
    dark, bright = payload[6]
    assert len(payload) == 7 and dark.shape == bright.shape == (3, SIDE, SIDE)
    assert torch.equal(dark, same[6][0]) and not torch.equal(dark, other[6][0])
    assert torch.equal(bright, payload[1][1])  # the same photo,
    assert not torch.equal(dark, payload[1][0])  # darkened another time
    assert dark.mean() < 0.5 * bright.mean() and dark.min() >= 0
    assert torch.equal(dark, (dark * 255).round() / 255)


def test_darkness_and_noise_are_what_they_say() -> None:
    grey = torch.full((3, 128, 128), 0.64)
    clean = darken(grey, stream(1, "a"), darkness=(0.2, 0.2), noise=(0.0, 0.0))
    noisy = darken(grey, stream(1, "a"), darkness=(0.2, 0.2), noise=(0.002, 0.01))
    light = 0.2 * 0.64**1.5  # times a map between 1/2 and 1
    assert light / 2 - 0.002 < clean.min() and clean.max() < light + 0.002
    expected = (0.002 * clean.mean() + 0.01**2 + 2 / 12 / 255**2).sqrt()  # both are rounded
    # 49,152 values: their standard deviation is known within 0.32 %, five times that is 1.6 %
    assert float((noisy - clean).std()) == pytest.approx(float(expected), rel=0.016)


def test_a_copy_of_lol_gives_pairs_of_either_split(lol: Path) -> None:
    train, test = LowLight(str(lol), split="train"), LowLight(str(lol))
    assert (len(train), len(test)) == (3, 2)
    assert len(LowLight(str(lol), split="train", count=2)) == 2
    dark, bright = train[1]
    assert dark.shape == bright.shape == (3, 40, 60) and not torch.equal(dark, bright)
    with pytest.raises(ValueError, match="has only our485, eval15"):
        LowLight(str(lol), split="val")


def test_the_other_layouts_are_read(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write(tmp_path / "LOL" / split / "low", "ab", 1)
        write(tmp_path / "LOL" / split / "high", "ab", 2)
    assert len(LowLight(str(tmp_path / "LOL"), split="val")) == 2
    pair = LowLight(str(tmp_path / "LOL" / "val"), crop=32)[0]
    assert pair[0].shape == pair[1].shape == (3, 32, 32)
    alone = tmp_path / "LOL" / "val" / "low"
    with pytest.raises(ValueError, match="no copy of LOL"):
        LowLight(str(alone), split="val")
    photos = LowLight(str(alone), darkness=(0.1, 0.2), count=5)
    assert len(photos) == 5 and photos[4][0].mean() < photos[4][1].mean()


def test_images_without_reference_refuse_metrics_that_need_one(tmp_path: Path) -> None:
    write(tmp_path / "dicm", "ab", 1)
    source, target = LowLight(str(tmp_path / "dicm"))[0]
    assert source.shape == (3, 40, 60) and target.numel() == 0
    pair = source[None], target[None]
    for metric in (TaskPSNR(), MatchedPSNR(), FlatNoise(), LightnessOrder()):
        with pytest.raises(ValueError, match="payload with reference images"):
            metric(Outcome(pair[0], pair[0], pair[1]))


def test_pairs_that_are_none_are_refused(tmp_path: Path, lol: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        LowLight(str(tmp_path / "none"), split="test")
    (lol / "our485" / "high" / "c.png").unlink()
    with pytest.raises(ValueError, match="but c is only in low"):
        LowLight(str(lol), split="train")
    write(tmp_path / "odd" / "low", "a", 1)
    write(tmp_path / "odd" / "high", "a", 1, shape=(30, 60))
    with pytest.raises(ValueError, match="shows the same pixels"):
        LowLight(str(tmp_path / "odd"))[0]


def test_pairs_are_those_of_equal_names_whatever_their_endings(tmp_path: Path) -> None:
    from PIL import Image

    def grey(file: str, value: int) -> None:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(tmp_path / file)

    for file, value in {"low/a.bmp": 10, "low/a.k.bmp": 20, "high/a.png": 110, "high/a.k.png": 120,
                        }.items():  # fmt: skip
        grey(file, value)  # of low a comes first, of high a.k
    pairs = [tuple(round(255 * float(x.mean())) for x in pair) for pair in LowLight(str(tmp_path))]
    assert pairs == [(10, 110), (20, 120)]
    grey("low/a.png", 10)
    with pytest.raises(ValueError, match=r"several images of low of .* are called a; keep one"):
        LowLight(str(tmp_path))


def test_lightness_order_counts_all_pairs_some_at_a_time() -> None:
    image, other = torch.rand(2, 2, 3, 48, 48, generator=stream(1, "order"))
    a, b = (x.amax(dim=1).flatten(1) for x in (image, other))
    wrong = (a[:, :, None] >= a[:, None]) != (b[:, :, None] >= b[:, None])
    assert torch.allclose(lightness_order(image, other), wrong.double().mean(dim=(1, 2)).float())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "train"}, "a copy of LOL"),
        ({"darkness": (0.5, 0.1)}, "least <= largest"),
        ({"darkness": (0.0, 0.1)}, "0 < least"),
        ({"noise": (-1.0, 0.0)}, "neither below 0"),
        ({"noise": (0.0, float("inf"))}, "noise is .shot, read., finite"),
        ({"count": 0}, "count is at least 1"),
    ],
)
def test_void_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LowLight(**options)


def test_options_without_use_are_refused(lol: Path) -> None:
    with pytest.raises(ValueError, match="photos that are darkened"):
        LowLight(str(lol), noise=(0.0, 0.0))
    with pytest.raises(ValueError, match="count: 3"):
        LowLight(str(lol), count=3)


def outcome(output: Tensor, target: Tensor) -> Outcome:
    return Outcome(output, output, target)


def test_matched_psnr_does_not_see_a_gain() -> None:
    target = 0.1 + 0.6 * torch.rand(2, 3, 32, 32, generator=stream(1, "t"))
    noisy = (target + 0.05 * torch.randn(target.shape, generator=stream(1, "n"))).clamp(0, 1)
    plain, dark = (MatchedPSNR()(outcome(k * noisy, target)) for k in (1.0, 0.5))
    # halving before rounding to 8 bits adds 4/12 to an MSE of 160: 0.01 dB
    assert torch.allclose(plain, dark, atol=0.05)
    assert (TaskPSNR()(outcome(0.5 * noisy, target)) < plain - 5).all()


def test_flat_noise_is_the_noise_and_does_not_see_texture() -> None:
    target = torch.full((1, 3, 64, 64), 0.5)
    target[..., 32:] += 0.2 * torch.rand(3, 64, 32, generator=stream(1, "t"))
    noise = torch.randn(1, 1, 64, 64, generator=stream(1, "n")).expand(-1, 3, -1, -1)
    found = FlatNoise()(outcome(target + 0.04 * noise, target))
    # blocks of 64 pixels, biased by 1/128; 13 of them: 2 % is one standard deviation
    assert float(found) == pytest.approx(0.04 * 255, rel=0.1)
    assert float(FlatNoise()(outcome(target, target))) == 0


def test_lightness_order_counts_what_changes_places() -> None:
    ramp = torch.linspace(0, 1, 2500).view(1, 1, 50, 50).expand(-1, 3, -1, -1)
    assert float(lightness_order(ramp, ramp**3)) == 0
    assert float(lightness_order(ramp, 1 - ramp)) == pytest.approx(1, abs=1e-3)  # but for itself
    assert float(LightnessOrder()(outcome(ramp.sqrt(), ramp))) < 0.01  # 8 bits make ties


@pytest.mark.parametrize("at", ["sender", "receiver", "none"])
def test_a_sweep_compares_what_comes_out_with_the_reference(at: Any) -> None:
    payload = LowLight(resize=SIDE, crop=SIDE, darkness=(0.2, 0.2))
    kinds = ["task_psnr", "psnr", "matched_psnr", "flat_noise", "lightness_order"]
    nothing = spec.build(spec.parse("transmitter", "no_link"))
    rows = evaluate(
        nothing.link_class(nothing, AWGN()), payload, snr_db=[10], metrics=kinds,
        task=Enhance(at, step=8), stop=Stop(max_items=2), batch_size=2,
    )  # fmt: skip
    value = {row["metric"]: row["value"] for row in rows}
    dark, bright = torch.stack([payload[i][0] for i in (0, 1)]), payload[0][1]
    expected = dark if at == "none" else Enhance(step=8)(dark)
    psnr = TaskPSNR()(outcome(expected, torch.stack([bright, payload[1][1]]))).mean()
    assert value["task_psnr"] == pytest.approx(float(psnr), abs=1e-3)
    assert value["psnr"] > 58  # nothing lies between source and estimate
