"""Images in an .npz file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from semsim.payloads.arrays import Arrays

X = np.random.default_rng(3).integers(0, 256, (6, 4, 5, 3), np.uint8)


def test_pixels_and_labels_come_as_written(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "set.npz", x=X, y=np.arange(6, dtype=np.uint8))
    payload = Arrays(str(tmp_path / "set.npz"), start=-2)
    image, label = payload[0]
    assert (len(payload), payload.name, label) == (2, "set", 4)
    assert torch.equal((image * 255).round().byte(), torch.from_numpy(X[4]).permute(2, 0, 1))


def test_without_labels_the_target_is_the_source(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=X)
    image, target = Arrays(str(tmp_path / "set.npz"))[0]
    assert target is image


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"x": X.astype(np.float32)}, "x as float32"),
        ({"x": X[..., 0]}, r"uint8 \[N, H, W, 3\]"),
        ({"y": np.arange(3)}, "holds no x"),
        ({"x": X, "y": np.arange(3)}, r"integers \[6\]"),
        ({"x": X, "y": np.array([object] * 6)}, "cannot be read"),
    ],
)
def test_another_layout_is_refused(tmp_path: Path, held: dict[str, object], words: str) -> None:
    np.savez(tmp_path / "set.npz", **held)
    with pytest.raises(ValueError, match=words):
        Arrays(str(tmp_path / "set.npz"))


def test_no_npz_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        Arrays(str(tmp_path / "set.npz"))
    (tmp_path / "set.npz").write_text("hello")
    with pytest.raises(ValueError, match="cannot be read"):
        Arrays(str(tmp_path / "set.npz"))
    np.save(tmp_path / "single.npy", X)
    with pytest.raises(ValueError, match="cannot be read"):
        Arrays(str(tmp_path / "single.npy"))
