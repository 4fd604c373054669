"""Folders of image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semsim.payloads.folder import Folder


def save(path: Path, value: int, size: tuple[int, int] = (24, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def brightness(folder: Folder) -> list[int]:
    return [round(float(folder[i][0].mean()) * 255) for i in range(len(folder))]


def test_files_come_in_the_order_of_their_names_in_any_format(tmp_path: Path) -> None:
    for value, name in enumerate(["b.webp", "a.PNG", "d.ppm", "c.jpeg"]):
        save(tmp_path / name, 60 * value)
    (tmp_path / "readme.txt").write_text("no image")
    assert brightness(Folder(str(tmp_path))) == [60, 0, 180, 120]
    assert Folder(str(tmp_path)).name == tmp_path.name


def test_grey_and_palette_files_become_three_channels(tmp_path: Path) -> None:
    Image.new("L", (9, 8), 100).save(tmp_path / "grey.png")
    Image.new("RGB", (9, 8), (100, 100, 100)).quantize(4).save(tmp_path / "palette.png")
    folder = Folder(str(tmp_path))
    assert [tuple(folder[i][0].shape) for i in (0, 1)] == [(3, 8, 9), (3, 8, 9)]
    assert brightness(folder) == [100, 100]


def test_subfolders_are_classes_in_sorted_order(tmp_path: Path) -> None:
    save(tmp_path / "dog" / "1.png", 10)
    save(tmp_path / "cat" / "2.png", 20)
    save(tmp_path / "cat" / "deeper" / "3.png", 30)
    folder = Folder(str(tmp_path), classes=True)
    assert folder.classes == ["cat", "dog"]
    assert [folder[i][1] for i in range(3)] == [0, 0, 1]
    assert len(Folder(str(tmp_path), recursive=True)) == 3


def test_start_and_count_choose_files(tmp_path: Path) -> None:
    for value in range(5):
        save(tmp_path / f"{value}.png", value)
    assert brightness(Folder(str(tmp_path), start=-2)) == [3, 4]
    assert brightness(Folder(str(tmp_path), start=1, count=2)) == [1, 2]
    with pytest.raises(ValueError, match="has 5 images, cannot take start: 4, count: 2"):
        Folder(str(tmp_path), start=4, count=2)


def test_resize_and_crop_keep_the_centre(tmp_path: Path) -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[5:15, 15:25] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert Folder(str(tmp_path), crop=10)[0][0].min() == 1
    assert tuple(Folder(str(tmp_path), resize=10)[0][0].shape) == (3, 10, 20)
    assert tuple(Folder(str(tmp_path), resize=10, crop=8)[0][0].shape) == (3, 8, 8)


def test_patches_come_from_all_over_a_photo_and_follow_the_seed(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (200, 200, 3))
    Image.fromarray(ramp.copy()).save(tmp_path / "ramp.png")
    some = Folder(str(tmp_path), crop=10, shrink=(1.0, 4.0), patches=100)
    columns = torch.stack([some[i][0] for i in range(100)])[:, 0].mean(dim=1) * 255  # [100, 10]
    steps = (columns[:, -1] - columns[:, 0]) / 9  # grey levels per pixel: the factor
    assert steps.min() > 0.9 and steps.max() < 4.1  # rounding to 8 bits
    assert steps.min() < 1.5 and steps.max() > 3.5
    assert columns.min() < 20 and columns.max() > 180
    other = Folder(str(tmp_path), crop=10, shrink=(1.0, 4.0), patches=100, seed=1)
    assert not torch.equal(other[0][0], some[0][0])


def test_a_photo_too_small_for_the_factor_gives_what_it_can(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 50, (12, 12))
    folder = Folder(str(tmp_path), crop=10, shrink=(2.0, 4.0), patches=3)
    assert brightness(folder) == [50, 50, 50]


def test_a_large_set_is_decoded_again_rather_than_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsim.payloads.folder.KEEP_BYTES", 24 * 20 * 3)
    save(tmp_path / "a.png", 10)
    save(tmp_path / "b.png", 20)
    folder = Folder(str(tmp_path))
    assert brightness(folder) == brightness(folder) == [10, 20]
    assert list(folder._kept) == [0]


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 10, (64, 64))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image"):
        Folder(str(tmp_path))[0]
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image"):
        Folder(str(tmp_path))[0]


def test_an_image_beyond_all_sizes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a.png", 10)
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image .*exceeds limit"):
        Folder(str(tmp_path))[0]


def test_a_relative_folder_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        Folder("nowhere")
    assert f"nowhere is not a folder (looked in {tmp_path}); give" in str(caught.value)
    with pytest.raises(ValueError, match="nowhere is not a folder; give"):
        Folder(str(tmp_path / "nowhere"))


def test_a_wrong_folder_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        Folder(str(tmp_path / "nowhere"))
    save(tmp_path / "sub" / "a.png", 1)
    with pytest.raises(ValueError, match="recursive: true"):
        Folder(str(tmp_path))
    save(tmp_path / "loose.png", 1)
    with pytest.raises(ValueError, match=r"loose\.png lies outside"):
        Folder(str(tmp_path), classes=True)


def test_void_patch_options_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1)
    with pytest.raises(ValueError, match="patches 4 needs shrink"):
        Folder(str(tmp_path), patches=4)
    with pytest.raises(ValueError, match="give crop"):
        Folder(str(tmp_path), shrink=(1.0, 2.0))
    with pytest.raises(ValueError, match="least <= largest"):
        Folder(str(tmp_path), crop=8, shrink=(0.5, 2.0))
    with pytest.raises(ValueError, match="crop 30 does not fit"):
        Folder(str(tmp_path), crop=30)[0]
    with pytest.raises(ValueError, match="crop 30 is larger"):
        Folder(str(tmp_path), crop=30, shrink=(1.0, 2.0))[0]
