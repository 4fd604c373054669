"""The payload of MARformer: procedural jaws, CT slices and the public folder layouts."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from semsim.payloads.ct import WATER_MU, WINDOW_MU, to_mu
from semsim.vision.marformer import MetalSlices

SMALL = {"size": 48, "views": 60}


def body(size: int = 48) -> np.ndarray:
    """A water ellipse with a bone in it, in HU."""
    at = np.arange(size) - (size - 1) / 2
    hounsfield = np.full((size, size), -1000, np.int16)
    hounsfield[(at / 20) ** 2 + (at[:, None] / 15) ** 2 < size / 48] = 40
    hounsfield[at**2 + (at[:, None] - 6) ** 2 < 9] = 900
    return hounsfield


@pytest.fixture
def bodies(tmp_path: Path) -> Path:
    np.save(tmp_path / "hu.npy", np.stack([body()] * 3))
    split = np.array(["train", "test", "train"])
    np.savez(tmp_path / "meta.npz", split=split, mm_per_px=np.array([0.7, 0.6, 0.8]))
    return tmp_path


def test_slices_without_a_stored_split_all_test(bodies: Path) -> None:
    np.savez(bodies / "meta.npz", pixel_mm=np.full(3, 0.7))
    assert len(MetalSlices(path=str(bodies))) == 3
    with pytest.raises(ValueError, match=r"slices are for training; write split \[3\] into meta"):
        MetalSlices(path=str(bodies), split="train")


def check(payload: MetalSlices, size: int) -> None:
    """What every payload keeps."""
    for source, target in (payload[0], payload[len(payload) - 1]):
        for image in (source, target):
            assert image.shape == (3, size, size) and image.dtype == torch.float32
            assert image.min() >= 0 and image.max() <= 1
            assert torch.equal(image[0], image[1]) and torch.equal(image[0], image[2])
        assert not torch.equal(source, target)


def test_jaws_depend_on_seed_split_and_index_alone() -> None:
    one, same = MetalSlices(4, **SMALL), MetalSlices(9, **SMALL)
    check(one, 48)
    assert all(torch.equal(a, b) for a, b in zip(one[3], same[3], strict=True))
    assert torch.equal(one[-1][0], one[3][0])
    for other in (MetalSlices(4, seed=1, **SMALL), MetalSlices(4, split="train", **SMALL)):
        assert not torch.equal(other[3][1], one[3][1])
    with pytest.raises(IndexError, match="4 slices, asked for number 4"):
        one[4]


def test_bridging_changes_the_source_alone() -> None:
    dense = {"materials": ["Zr", "Ag"], **SMALL}  # lighter metal may do less harm than the bridge
    raw, bridged = MetalSlices(6, **dense), MetalSlices(6, corrupted="li", **dense)
    for (before, clean), (after, same) in zip(raw, bridged, strict=True):
        assert torch.equal(clean, same)
        assert (after - clean).square().mean() < (before - clean).square().mean()


def test_few_pieces_are_more_frequent_and_materials_are_the_ones_asked_for() -> None:
    payload = MetalSlices(200, materials=["Cu", "Au"], metals=(2, 3), **SMALL)
    drawn = [payload.material(n) for n in range(200)]
    assert {m for m, _ in drawn} == {"Cu", "Au"} and {c for _, c in drawn} == {2, 3}
    assert sum(c == 2 for _, c in drawn) > 110  # 3/4 expected, 150 +- 6


def test_ct_slices_keep_their_split_and_get_new_metal_each_time(bodies: Path) -> None:
    test, train = (MetalSlices(path=str(bodies), views=60, split=s) for s in ("test", "train"))
    assert (len(test), len(train)) == (1, 2)
    check(train, 48)
    more = MetalSlices(3, path=str(bodies), views=60)
    assert not torch.equal(more[0][0], more[1][0])
    assert more.scan(0).trace.any()
    small = MetalSlices(path=str(bodies), size=24, views=60)
    check(small, 24)
    # 0.6 mm on a grid of 512 are 6.4 mm on one of 48 and twice that on one of 24
    assert test.slices.slice(0, 1, torch.Generator())[2] == pytest.approx(0.64)
    assert small.slices.slice(0, 1, torch.Generator())[2] == pytest.approx(1.28)


def test_water_comes_out_as_water(bodies: Path) -> None:
    clean = MetalSlices(path=str(bodies), views=60)[0][1][0]
    water = clean[18:30, 12:18].mean() * WINDOW_MU
    # the water correction is fitted for water alone, and bone shades it by a few per cent
    assert water.item() == pytest.approx(WATER_MU * 1.04, rel=0.05)


@pytest.mark.parametrize("scale", ["hu", "unit"])
def test_nifti_volumes_are_split_by_volume(tmp_path: Path, scale: str) -> None:
    nibabel = pytest.importorskip("nibabel")
    for n in range(5):
        volume = np.stack([body().T] * 5, axis=2).astype(np.float32)
        volume = (volume + 1000) / 4000 if scale == "unit" else volume
        image = nibabel.Nifti1Image(volume, np.diag([3.0, 3.0, 3.0, 1.0]))
        nibabel.save(image, tmp_path / f"case_{n}.nii.gz")
    train = MetalSlices(path=str(tmp_path), split="train", views=60)
    test = MetalSlices(path=str(tmp_path), split="test", views=60)
    assert (len(train), len(test)) == (4 * 3, 3)  # the outer fifths of each volume are left out
    check(test, 48)
    mu, _, pixel_cm = test.slices.slice(0, 1, torch.Generator())
    assert pixel_cm == pytest.approx(0.3)
    assert torch.allclose(mu, to_mu(torch.from_numpy(body().astype(np.float32))), atol=1e-4)


def test_few_volumes_are_not_both_trained_and_tested_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nibabel = pytest.importorskip("nibabel")
    noise = np.random.default_rng(1).normal(size=(16, 16, 5)).astype(np.float32)
    image = nibabel.Nifti1Image(noise, np.eye(4))
    for name in ("imagesTr", "labelsTr"):  # nnU-Net's folders; labels are no CT
        (tmp_path / name).mkdir()
        nibabel.save(image, tmp_path / name / "case_0.nii.gz")
    assert len(MetalSlices(path=str(tmp_path))) == 3
    with pytest.raises(ValueError, match="the one volume there tests"):
        MetalSlices(path=str(tmp_path), split="train")
    with (
        monkeypatch.context() as patch,
        pytest.raises(ImportError, match=r"semsim-wireless\[vision\]"),
    ):
        patch.setitem(sys.modules, "nibabel", None)
        MetalSlices(path=str(tmp_path))
    for n in (1, 2):
        nibabel.save(image, tmp_path / "imagesTr" / f"case_{n}.nii.gz")
    sizes = [len(MetalSlices(path=str(tmp_path), split=s)) for s in ("train", "test")]
    assert sizes == [2 * 3, 3]
    whole = (tmp_path / "imagesTr" / "case_2.nii.gz").read_bytes()
    (tmp_path / "imagesTr" / "case_2.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"case_2.nii.gz cannot be read"):
        MetalSlices(path=str(tmp_path))[2]


def test_the_tree_of_adn_gives_pairs(tmp_path: Path) -> None:
    from scipy.io import savemat

    folder = tmp_path / "test" / "case1" / "slice7"
    folder.mkdir(parents=True)
    hounsfield = body()
    raw = (hounsfield.T.astype(np.int32) + 32768).astype(np.uint16)
    savemat(folder / "gt.mat", {"image": raw})
    for n in (1, 2, 10):
        savemat(folder / f"{n}.mat", {"image": to_mu(torch.from_numpy(hounsfield)).numpy() * n})
    payload = MetalSlices(path=str(tmp_path))
    assert len(payload) == 3
    first, truth = payload[0]
    assert torch.allclose(first, truth, atol=1e-6)  # transposed, shifted and scaled alike
    assert truth[0, 24, 24].item() == pytest.approx(1.04 * WATER_MU / WINDOW_MU, abs=1e-4)
    assert payload[1][0].max() > payload[0][0].max()  # 2.mat comes before 10.mat
    (folder / "2.mat").write_bytes(b"")
    with pytest.raises(ValueError, match="be read as a MATLAB 5 array"):
        MetalSlices(path=str(tmp_path), seed=1)[1]
    with pytest.raises(ValueError, match=r"photons does nothing with .* got 20000000.0; leave it"):
        MetalSlices(path=str(tmp_path), photons=2e7)
    with pytest.raises(ValueError, match="needs sinograms"):
        MetalSlices(path=str(tmp_path), corrupted="li")
    with pytest.raises(ValueError, match="finished slices"):
        payload.scan(0)
    with pytest.raises(ValueError, match="holds 3 pairs for test, got count 4"):
        MetalSlices(4, path=str(tmp_path))


@pytest.mark.parametrize("suffix", [".npy", ".png"])
def test_plain_pairs_of_folders(tmp_path: Path, suffix: str) -> None:
    from PIL import Image

    for name, value in (("clean", 51), ("metal", 204)):
        (tmp_path / name).mkdir()
        pixels = np.full((20, 16), value, np.uint8)
        pixels[0] = 0
        if suffix == ".png":
            Image.fromarray(pixels).save(tmp_path / name / "a.png")
        else:
            np.save(tmp_path / name / "a.npy", pixels.astype(np.float64) / 255)
    source, target = MetalSlices(path=str(tmp_path))[0]
    assert source.shape == (3, 20, 20)  # padded to a square
    assert source[0, 10, 10].item() == pytest.approx(0.8)
    assert target[0, 10, 10].item() == pytest.approx(0.2) and target[0, 10, 0] == 0
    with pytest.raises(ValueError, match="train/clean"):
        MetalSlices(path=str(tmp_path), split="train")
    for name in ("clean", "metal"):
        (tmp_path / "train").mkdir(exist_ok=True)
        shutil.copytree(tmp_path / name, tmp_path / "train" / name)
    assert torch.equal(MetalSlices(path=str(tmp_path), split="train")[0][0], source)
    (tmp_path / "metal" / f"a{suffix}").unlink()
    with pytest.raises(ValueError, match="missing"):
        MetalSlices(path=str(tmp_path))


def test_void_choices_are_refused(tmp_path: Path, bodies: Path) -> None:
    for arguments, message in (
        ({"corrupted": "nmar"}, "raw or li"),
        ({"split": "val"}, "train or test"),
        ({"materials": ["Pb"]}, "out of Ti, Fe"),
        ({"materials": []}, "got none"),
        ({"metals": (3, 1)}, "least, most"),
        ({"metals": (30, 40)}, r"up to 14 teeth.* got metals \[30, 40\]; write at most \[14, 14\]"),
        ({"count": 0}, "at least 1"),
        ({"views": 7}, "write 8"),
        ({"photons": 0}, "photons must be > 0"),
        ({"photons": float("inf")}, "photons must be > 0 and finite"),
        ({"path": str(tmp_path / "nowhere")}, "not a folder"),
        ({"path": str(bodies), "split": "test", "count": 1, "size": 4096}, "more than the 48"),
    ):
        with pytest.raises(ValueError, match=message):
            MetalSlices(**arguments)[0]
    for content in (b"no array", b""):
        (bodies / "hu.npy").write_bytes(content)
        with pytest.raises(ValueError, match="unpack it again"):
            MetalSlices(path=str(bodies))
    (bodies / "hu.npy").unlink()
    with pytest.raises(ValueError, match="holds no slices"):
        MetalSlices(path=str(bodies))
