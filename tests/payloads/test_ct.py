"""CT files that are damaged, on another scale or absurdly large are named before they are used."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsim.payloads.ct import SlicePairs, open_slices

PLANE = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)


def pairs(folder: Path, change: Callable[[Any], Any], suffix: str = ".npy") -> SlicePairs:
    for name in ("clean", "metal"):
        (folder / name).mkdir()
        values = change(PLANE) if name == "metal" else PLANE
        np.save(folder / name / "a.npy", values)
        (folder / name / "a.npy").rename(folder / name / f"a{suffix}")
    found = open_slices(folder, "test", None)
    assert isinstance(found, SlicePairs)
    return found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: 3000 * x - 1000, r"a\.npy hold values from -1000 to 2000, .*0\.384"),
        (lambda x: (255 * x).astype(np.uint8), r"a\.npy hold values .*divide them by 255"),
        (lambda x: 2 * x - 1, r"a\.npy hold values .*give \(x \+ 1\) / 2"),
        (lambda x: np.where(x > 0.5, np.nan, x), r"a\.npy hold NaN"),
        (lambda x: x[None], r"a\.npy cannot be read as an array \[H, W\] \(it is \[1, 8, 8\]"),
        (lambda x: np.array([object()]), r"a\.npy cannot be read as an array"),
    ],
)
def test_slices_that_are_not_in_the_window_are_refused(
    tmp_path: Path, change: Callable[[Any], Any], said: str
) -> None:
    found = pairs(tmp_path, change)
    with pytest.raises(ValueError, match=said):
        found.pair(0)


def test_every_slice_is_looked_at_first(tmp_path: Path) -> None:
    found = pairs(tmp_path, lambda x: x)
    found.check_files()
    content = (tmp_path / "metal" / "a.npy").read_bytes()
    for broken in (b"", content[:40], content[:-8]):
        (tmp_path / "metal" / "a.npy").write_bytes(broken)
        with pytest.raises(ValueError, match=r"metal/a\.npy cannot be read as an array"):
            found.check_files()
    (tmp_path / "metal" / "a.npy").unlink()
    os.mkfifo(tmp_path / "metal" / "a.npy")
    with pytest.raises(ValueError, match=r"metal/a\.npy is no plain file"):
        found.check_files()


def test_a_header_that_asks_for_terabytes_is_refused(tmp_path: Path) -> None:
    found = pairs(tmp_path, lambda x: x)
    path = tmp_path / "metal" / "a.npy"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4000000, 4000000), }"
    header = header.ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64))
    for reader in (found.check_files, lambda: found.pair(0)):
        with pytest.raises(ValueError, match=r"metal/a\.npy cannot be read as an array"):
            reader()


def test_matlab_files_are_looked_at_first(tmp_path: Path) -> None:
    from scipy.io import savemat

    folder = tmp_path / "test" / "case" / "1"
    folder.mkdir(parents=True)
    savemat(folder / "gt.mat", {"image": PLANE}), savemat(folder / "1.mat", {"image": PLANE[None]})
    found = open_slices(tmp_path, "test", None)
    assert isinstance(found, SlicePairs)
    with pytest.raises(ValueError, match=r"1\.mat cannot be read .*\[1, 8, 8\]"):
        found.check_files()
    savemat(folder / "1.mat", {"image": np.full((8, 8), np.inf, np.float32)})
    with pytest.raises(ValueError, match=r"1\.mat holds NaN or infinity"):
        found.pair(0)


def volume(folder: Path, values: Any) -> Path:
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(values, np.diag([0.5, 0.5, 1, 1])), folder / "case.nii")
    return folder / "case.nii"


def test_nan_in_a_volume_names_the_volume_and_its_slice(tmp_path: Path) -> None:
    values = np.full((6, 6, 5), -1000, np.float32)
    values[2, 2, 2] = np.nan
    volume(tmp_path, values)
    slices: Any = open_slices(tmp_path, "test", None)
    slices.slice(0)
    with pytest.raises(ValueError, match=r"case\.nii, slice 2, holds NaN or infinity; write -1000"):
        slices.slice(1)


def test_slices_between_0_and_1_are_not_taken_for_hounsfield_units(tmp_path: Path) -> None:
    np.save(tmp_path / "hu.npy", PLANE[None])
    np.savez(tmp_path / "meta.npz", pixel_mm=np.array([0.5]))
    slices: Any = open_slices(tmp_path, "test", None)
    with pytest.raises(ValueError, match=r"hu\.npy, slice 0, lies in \[0, 1\], not in HU"):
        slices.slice(0)


def test_a_volume_of_too_many_slices_is_refused_at_once(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    header = nibabel.Nifti2Header()
    header.set_data_dtype(np.int16)
    content = bytearray(bytes(header.binaryblock))
    content[16:80] = struct.pack("<8q", 3, 8, 8, 1 << 33, 1, 1, 1, 1)
    (tmp_path / "case.nii").write_bytes(bytes(content) + bytes(64))
    with pytest.raises(ValueError, match=r"case\.nii says it is \[8, 8, 8589934592\]"):
        open_slices(tmp_path, "test", None)


@pytest.mark.parametrize("side", [0.0, -1.0, float("nan"), 1e6])
def test_a_pixel_without_a_size_is_refused(tmp_path: Path, side: float) -> None:
    np.save(tmp_path / "hu.npy", np.full((1, 8, 8), -1000, np.int16))
    np.savez(tmp_path / "meta.npz", pixel_mm=np.array([side]))
    with pytest.raises(ValueError, match=r"slice 0 has pixels of .* mm"):
        open_slices(tmp_path, "test", None)


@pytest.mark.parametrize("facts", [{"pixel_mm": np.array(0.5)}, {"split": np.array(["test"])}])
def test_facts_that_are_not_one_for_each_slice_are_refused(tmp_path: Path, facts: Any) -> None:
    np.save(tmp_path / "hu.npy", np.full((2, 8, 8), -1000, np.int16))
    np.savez(tmp_path / "meta.npz", **{"pixel_mm": np.full(2, 0.5), **facts})
    with pytest.raises(ValueError, match=r"meta\.npz has .* for 2 slices; write one for each"):
        open_slices(tmp_path, "test", None)
