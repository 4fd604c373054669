"""Image files of all kinds become the 8-bit RGB that a viewer would see, or are refused by name."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semsim.payloads.folder import Folder
from semsim.payloads.imagefile import look, open_image, read_grey

RNG = np.random.default_rng(11)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(
        ">I", zlib.crc32(name + content)
    )  # fmt: skip


def write_png16(path: Path, values: np.ndarray[Any, Any], *, key: bytes = b"") -> Path:
    """Write a PNG of 16 bits per value, [H, W, C], rows filtered in all five ways in turn."""
    height, width, channels = values.shape
    rows = values.astype(">u2").view(np.uint8).reshape(height, -1).astype(int)
    step, above, lines = 2 * channels, np.zeros(rows.shape[1], int), []
    for number, row in enumerate(rows):
        left = np.concatenate([np.zeros(step, int), row[:-step]])
        corner = np.concatenate([np.zeros(step, int), above[:-step]])
        p = left + above - corner
        a, b, c = abs(p - left), abs(p - above), abs(p - corner)
        paeth = np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))
        guess = [0 * row, left, above, (left + above) // 2, paeth][number % 5]
        lines.append(bytes([number % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes())
        above = row
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    content = chunk(b"IHDR", header) + (chunk(b"tRNS", key) if key else b"")
    content += chunk(b"IDAT", zlib.compress(b"".join(lines))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def read(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(open_image(path)).astype(float)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_and_rounded(tmp_path: Path, channels: int) -> None:
    values = RNG.integers(0, 65536, (10, 7, channels))
    expected = np.broadcast_to(values / 257, (10, 7, 3))
    assert np.abs(read(write_png16(tmp_path / "a.png", values)) - expected).max() <= 0.5


@pytest.mark.parametrize("channels", [2, 4])
def test_sixteen_bits_with_alpha_are_laid_over_white(tmp_path: Path, channels: int) -> None:
    values = RNG.integers(0, 65536, (10, 7, channels))
    x = values / 65535
    expected = 255 * (x[..., :-1] * x[..., -1:] + 1 - x[..., -1:])
    found = read(write_png16(tmp_path / "a.png", values))
    assert np.abs(found - expected).max() <= 1.5  # colour, alpha and sum are each rounded once


def test_a_colour_that_is_not_seen_becomes_white(tmp_path: Path) -> None:
    values = np.full((2, 2, 3), 30000)
    values[0, 0] = 20000, 20001, 20002
    path = write_png16(tmp_path / "a.png", values, key=struct.pack(">3H", 20000, 20001, 20002))
    assert read(path)[0, 0].tolist() == [255] * 3 and read(path)[1, 1].tolist() == [117] * 3


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [None, "zlib"])
def test_sixteen_bit_tiff_is_read_in_both_byte_orders(
    tmp_path: Path, order: Any, packed: str | None
) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = RNG.integers(0, 65536, (8, 6, 3)).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif", values, photometric="rgb", byteorder=order, compression=packed
    )
    assert np.abs(read(tmp_path / "a.tif") - values / 257).max() <= 0.5
    planes = values.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "b.tif", planes, photometric="rgb", planarconfig="separate")
    with pytest.raises(ValueError, match=r"b\.tif cannot be read .*separate planes"):
        open_image(tmp_path / "b.tif")


def test_ten_bits_in_a_file_of_sixteen_are_refused_with_the_factor(tmp_path: Path) -> None:
    path = write_png16(tmp_path / "a.png", RNG.integers(0, 1024, (20, 20, 3)) | 1023)
    with pytest.raises(ValueError, match=r"a\.png .* at most 1023 .* multiply them by 64"):
        open_image(path)
    assert read(write_png16(tmp_path / "b.png", np.zeros((3, 3, 3), int))).max() == 0


def test_a_grey_file_with_a_stated_white_is_scaled_by_it(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P5 2 1 1023\n" + np.array([1023, 512], ">u2").tobytes())
    assert read(tmp_path / "a.ppm")[0, :, 0].tolist() == [255, 128]
    assert read_grey(tmp_path / "a.ppm")[0] == pytest.approx([1, 512 / 1023], abs=1e-4)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_hidden_colours_are_not_sent(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (200, 10, 20, 0))
    image.putpixel((1, 1), (9, 9, 9, 255))
    options = {"transparency": 0} if mode == "P" else {}
    if mode == "P":
        image = Image.new("P", (4, 4), 0)
        image.putpalette([200, 10, 20, 9, 9, 9])
        image.putpixel((1, 1), 1)
    image.convert(mode).save(tmp_path / "a.png", **options)
    found = read(tmp_path / "a.png")
    assert found[0, 0].tolist() == [255] * 3 and found[1, 1].tolist() == [9] * 3


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_photo_stands_as_the_camera_noted(tmp_path: Path, suffix: str) -> None:
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 250  # left; turned by 90 degrees clockwise it is above
    image, noted = Image.fromarray(pixels), Image.Exif()
    noted[0x0112] = 6
    image.save(tmp_path / f"a.{suffix}", exif=noted)
    found = read(tmp_path / f"a.{suffix}")
    assert found.shape == (32, 16, 3) and found[:14].min() > 200 and found[18:].max() < 50
    assert look(tmp_path / f"a.{suffix}") == (16, 32)


def test_a_sixteen_bit_photo_turns_too(tmp_path: Path) -> None:
    values = np.zeros((4, 6, 3), int)
    values[:, 0] = 65535
    path = write_png16(tmp_path / "a.png", values)
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    content = path.read_bytes()
    path.write_bytes(content[:33] + chunk(b"eXIf", exif) + content[33:])
    found = read(path)
    assert found.shape == (6, 4, 3) and found[0].min() == 255 and found[1:].max() == 0


def avif(path: Path) -> None:
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(path, format="AVIF")
    whole = bytearray(path.read_bytes())
    at = whole.index(b"mdat") + 8
    path.write_bytes(whole[:at] + bytes(len(whole) - at))


def foreign(kind: str) -> Any:
    return lambda path: Image.new("RGB", (8, 8)).save(path, format=kind)


DAMAGED = {
    "avif": avif,
    "eps": foreign("EPS"),
    "dds": foreign("DDS"),
    "float": lambda path: Image.new("F", (8, 8), 0.5).save(path, format="TIFF"),
    "integers": lambda path: Image.new("I", (8, 8), 70000).save(path, format="TIFF"),
    "pipe": os.mkfifo,
    "text": lambda path: path.write_text("hello"),
    "empty": lambda path: path.touch(),
    "gone": lambda path: None,
}  #: names say .png: only the content counts


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_cannot_be_decoded_is_one_sentence_with_the_file(tmp_path: Path, kind: str) -> None:
    DAMAGED[kind](tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png") as caught:
        open_image(tmp_path / "a.png")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    if kind != "avif":  # whose header is sound
        with pytest.raises(ValueError, match=r"a\.png"):
            look(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on damaged TIFF
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "avif", "bmp", "ppm", "tif"])
def test_flipped_bytes_end_in_an_image_or_in_a_sentence(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RNG.integers(0, 256, (24, 24, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    for _ in range(60):
        broken = bytearray(whole)
        for at in RNG.integers(0, min(len(whole), 400), 4):
            broken[at] = RNG.integers(256)
        path.write_bytes(broken)
        for reader in (open_image, look, read_grey):
            try:
                reader(path)
            except ValueError as error:
                assert path.name in str(error)


def test_a_bad_image_late_in_a_folder_is_seen_before_any_is_sent(tmp_path: Path) -> None:
    for name in "abc":
        Image.new("RGB", (20, 20)).save(tmp_path / f"{name}.png")
    folder = Folder(str(tmp_path), crop=16)
    folder.check_files()
    (tmp_path / "c.png").write_bytes((tmp_path / "c.png").read_bytes()[:20])
    with pytest.raises(ValueError, match=r"c\.png cannot be read as an image"):
        folder.check_files()
    Image.new("RGB", (20, 12)).save(tmp_path / "c.png")
    with pytest.raises(ValueError, match=r"crop 16 does not fit into .*c\.png of 20x12"):
        folder.check_files()
    Folder(str(tmp_path), crop=16, resize=16).check_files()


def test_a_header_is_read_once_for_all_links_of_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    Folder(str(tmp_path)).check_files()
    monkeypatch.setattr("semsim.payloads.folder.look", lambda path: pytest.fail("read again"))
    Folder(str(tmp_path)).check_files()


def test_a_name_that_is_no_utf_8_can_be_read_and_said(tmp_path: Path) -> None:
    place = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(place)
    Image.new("RGB", (8, 8)).save(os.fsdecode(place + b"/\xff.png"))
    folder = Folder(os.fsdecode(place))
    assert folder[0][0].shape == (3, 8, 8)
    assert folder.name.encode() == "caf\N{REPLACEMENT CHARACTER}".encode()
    Path(os.fsdecode(place + b"/\xff.png")).write_text("hello")
    with pytest.raises(ValueError, match="cannot be read") as caught:
        Folder(os.fsdecode(place))[0]
    str(caught.value).encode()
