"""Image codecs: containers rebuilt from streams, and the cache of what was encoded."""

from __future__ import annotations

import io
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semsim.codecs.image_codecs import ImageCodec, Pixels, image_codec, psnr
from semsim.codecs.rd_cache import RateDistortion
from semsim.codecs.stills import Stills, cbr_fraction, pixels_of, sources_of, symbols_at
from semsim.seeds import stream

CODECS = ("jpeg", "jpeg2000", "webp", "avif", "hevc")


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    """Make smooth coloured waves with some noise, so that every codec has something to do."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (3 + c) + seed) + np.cos(y / (5 - c)) for c in range(3)]
    noise = torch.randn(height, width, 3, generator=stream(seed, "picture")).numpy()
    return (128 + 40 * np.stack(waves, axis=-1) + 6 * noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("size", [(32, 32), (64, 96), (45, 77)])
def test_a_stream_in_a_rebuilt_container_is_the_same_file(name: str, size: tuple[int, int]) -> None:
    codec, image = image_codec(name), picture(*size)
    for step in (codec.steps // 4, codec.steps // 2 + 1):
        file = codec.encode(image, step)
        assert codec.rebuild(codec.strip(file), step, *size) == file
        assert codec.decode(file).shape == image.shape


@pytest.mark.parametrize("name", CODECS)
def test_more_quality_costs_more_and_looks_better(name: str) -> None:
    codec, image = image_codec(name), picture(64, 64)
    files = [codec.encode(image, step) for step in (codec.steps // 5, codec.steps * 4 // 5)]
    assert len(files[0]) < len(files[1])
    assert psnr(image, codec.decode(files[0])) < psnr(image, codec.decode(files[1]))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("hevc", 300, 600),
        ("avif", 200, 500),
        ("jpeg2000", 150, 160),
        ("webp", 27, 28),
        ("jpeg", 620, 626),
    ],
)
def test_what_stays_at_home(name: str, low: int, high: int) -> None:
    codec = image_codec(name)
    file = codec.encode(picture(64, 64), codec.steps // 2)
    assert low <= len(file) - len(codec.strip(file)) <= high


@pytest.mark.parametrize("name", ["jpeg", "jpeg2000", "webp"])
def test_a_file_is_rebuilt_at_any_step(name: str) -> None:
    codec = image_codec(name)
    for size in ((1, 1), (8, 9), (40, 300)):
        image = picture(*size)
        for step in range(0, codec.steps, 13):
            file = codec.encode(image, step)
            assert codec.rebuild(codec.strip(file), step, *size) == file


def test_jpeg_is_the_shortest_of_three_files_of_one_picture() -> None:
    kinds = set()
    for size, step in (((16, 16), 20), ((192, 192), 10), ((256, 256), 90)):
        image = picture(*size)
        pillow = Image.fromarray(image)
        files = []
        for options in ({}, {"optimize": True}, {"optimize": True, "progressive": True}):
            made = io.BytesIO()
            pillow.save(made, "JPEG", quality=step + 1, subsampling=2, **options)
            files.append(made.getvalue())
        minimal, whole = image_codec("jpeg"), image_codec("jpeg", "file")
        streams = [minimal.strip(file) for file in files]
        assert [stream[0] for stream in streams] == [0, 1, 2]
        assert minimal.strip(minimal.encode(image, step)) == min(streams, key=len)
        assert whole.encode(image, step) == min(files, key=len)
        for file in files:
            np.testing.assert_array_equal(minimal.decode(file), minimal.decode(files[0]))
        kinds.add(min(streams, key=len)[0])
    assert kinds == {0, 1, 2}


@pytest.mark.parametrize("name", CODECS)
def test_whole_files_travel_as_they_are(name: str) -> None:
    codec = image_codec(name, "file")
    file = codec.encode(picture(32, 32), codec.steps // 2)
    assert codec.strip(file) == file == codec.rebuild(file, codec.steps // 2, 32, 32)
    assert codec.settings != image_codec(name).settings


def test_an_encoder_whose_files_cannot_be_rebuilt_is_refused(tmp_path: Path) -> None:
    other = image_codec("webp")
    codec = replace(other, save=lambda image, step: other.save(image, step) + b"\0\0")
    with pytest.raises(ValueError, match="cannot be rebuilt from their stream"):
        RateDistortion(codec, tmp_path).coded(picture(16, 16), 40)


def test_a_small_jpeg_is_charged_its_scan_alone() -> None:
    codec, image = image_codec("jpeg"), picture(16, 16)
    file = codec.encode(image, 20)
    scan = file[file.index(b"\xff\xda") + 14 : -2]
    assert codec.strip(file) == b"\x00" + scan
    assert codec.charged(len(codec.strip(file)), len(file)) == len(scan) + 6


@pytest.mark.parametrize("headers", ["minimal", "file"])
@pytest.mark.parametrize("name", CODECS)
def test_what_travels_holds_the_image_whatever_zeros_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, headers: str
) -> None:
    monkeypatch.setenv("SEMSIM_CACHE", str(tmp_path))
    stills, image = Stills(name, headers, "mean"), picture(48, 64)
    coded = stills.fit(image, 8 * 3000)
    message = stills.pack(coded, image)
    assert len(message) == stills.codec.charged(len(coded.stream), coded.file_bytes) <= 2997
    unpacked = stills.unpack(message + bytes(50), 48, 64)
    np.testing.assert_array_equal(unpacked, stills.decode(coded, image))


class Counting:
    """A codec that counts how often it encodes."""

    def __init__(self, name: str) -> None:
        self.inner: ImageCodec = image_codec(name)
        self.calls = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def encode(self, image: Pixels, step: int) -> bytes:
        """Encode and count."""
        self.calls += 1
        return self.inner.encode(image, step)


@pytest.mark.parametrize("budget", [400, 900, 2000])
def test_the_search_finds_the_best_quality_that_fits(tmp_path: Path, budget: int) -> None:
    codec, image = image_codec("webp", "file"), picture(64, 64)
    found = RateDistortion(codec, tmp_path).largest_fit(image, budget)
    sizes = [len(codec.encode(image, step)) for step in range(codec.steps)]
    fitting = [step for step, size in enumerate(sizes) if size <= budget]
    assert found.file_bytes == sizes[found.step] <= budget
    assert found.step == max(fitting) or found.file_bytes >= 0.985 * budget


def test_a_budget_below_the_smallest_image_holds_nothing(tmp_path: Path) -> None:
    rates = RateDistortion(image_codec("jpeg"), tmp_path)
    assert rates.largest_fit(picture(32, 32), 25) is None


def test_a_budget_beyond_the_best_quality_gets_the_best(tmp_path: Path) -> None:
    codec = image_codec("jpeg")
    found = RateDistortion(codec, tmp_path).largest_fit(picture(32, 32), 10**6)
    assert found.step == codec.steps - 1


def test_the_answer_does_not_depend_on_what_is_cached(tmp_path: Path) -> None:
    image = picture(64, 64)
    busy = RateDistortion(image_codec("webp"), tmp_path / "busy")
    for budget in range(300, 2000, 70):
        busy.largest_fit(image, budget)
    alone = RateDistortion(image_codec("webp"), tmp_path / "alone")
    assert busy.largest_fit(image, 1000) == alone.largest_fit(image, 1000)


def test_an_image_is_encoded_once_also_by_another_run(tmp_path: Path) -> None:
    codec, image = Counting("jpeg"), picture(32, 32)
    first = RateDistortion(codec, tmp_path).largest_fit(image, 1200)
    calls = codec.calls
    again = RateDistortion(codec, tmp_path).largest_fit(image, 1200)
    assert calls > 0
    assert codec.calls == calls
    assert first == again


def test_a_damaged_entry_is_made_anew(tmp_path: Path) -> None:
    codec, image = Counting("jpeg"), picture(32, 32)
    rates = RateDistortion(codec, tmp_path)
    good = rates.coded(image, 40)
    with sqlite3.connect(rates.path) as connection:
        connection.execute("UPDATE encoded SET stream = zeroblob(length(stream))")
    assert rates.coded(image, 40) == good
    assert codec.calls == 2


@pytest.mark.parametrize("content", [b"no database at all" * 100, b""])
def test_a_damaged_file_is_made_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "images.sqlite").write_bytes(content)
    rates = RateDistortion(image_codec("jpeg"), tmp_path)
    assert rates.coded(picture(32, 32), 40) == rates.coded(picture(32, 32), 40)


def test_the_file_may_be_deleted_while_it_is_used(tmp_path: Path) -> None:
    rates = RateDistortion(image_codec("jpeg"), tmp_path)
    rates.coded(picture(32, 32), 40)
    rates.path.unlink()
    assert rates.coded(picture(32, 32), 41) == rates.coded(picture(32, 32), 41)


def test_pixels_and_tensors_are_the_same_image() -> None:
    source = torch.randint(256, (2, 3, 8, 12), generator=stream(0, "pixels")) / 255
    torch.testing.assert_close(sources_of(pixels_of(source), like=source), source)
    grey = source[:, :1]
    torch.testing.assert_close(sources_of(pixels_of(grey), like=grey), grey)


@pytest.mark.parametrize("cbr", [0, -1, "none", "1/0", float("nan"), float("inf")])
def test_a_cbr_that_is_none_is_refused(cbr: float | str) -> None:
    with pytest.raises(ValueError, match="positive number or a fraction"):
        cbr_fraction(cbr)


def test_the_symbols_are_the_cbr_times_the_source_values() -> None:
    assert symbols_at("1/16", (3, 512, 768)) == 3 * 512 * 768 // 16
    assert symbols_at(1 / 6, (3, 32, 32)) == 512
    with pytest.raises(ValueError, match="raise it"):
        symbols_at("1/1000", (3, 8, 8))


def test_unknown_names_and_wrong_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="there are jpeg"):
        image_codec("bpg")
    with pytest.raises(ValueError, match="uint8 pixels of shape"):
        image_codec("jpeg").encode(np.zeros((8, 8), np.uint8), 3)
    with pytest.raises(ValueError, match="steps 0 to 94"):
        image_codec("jpeg").encode(picture(8, 8), 95)
    with pytest.raises(ValueError, match="headers is minimal or file"):
        Stills("jpeg", "none", "mean")
