"""The crops on which LCFSC is trained and tested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from make_pool import read_pack
from PIL import Image
from torch import Tensor
from zoo_psnr import Images

SIDE = 64


class Crops(torch.utils.data.Dataset):
    """Patches of a pool of photos, from each part as many as its weight says; read from disk.

    Args:
        pool: file made by make_pool.py; its arrays are unpacked once, so that
            processes share their pages.
        folder: where to.
        count: how many patches.
    """

    name = "crops"

    def __init__(self, pool: Path, folder: Path, count: int = 12_000) -> None:
        rng = np.random.default_rng(0)
        pack = np.load(pool)
        shares = pack["weights"] / pack["weights"].sum()
        self.parts = [unpacked(pack, f"part{i}", folder) for i in range(len(shares))]
        self.places = [
            (part, int(place))
            for part, share in zip(self.parts, shares, strict=True)
            for place in rng.integers(0, len(part), round(share * count))
        ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        part, place = self.places[index]
        patch = torch.from_numpy(part[place].astype(np.float32)) / 255
        return patch, patch


def unpacked(pack: np.lib.npyio.NpzFile, key: str, folder: Path) -> np.ndarray:
    """An array of a pack as a file that is read where it is touched."""
    path = folder / f"{key}.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        pack.zip.extract(f"{key}.npy", folder)  # type: ignore[union-attr]
    return np.load(path, mmap_mode="r")


def test_crops(data: Path) -> Images:
    """119 crops of 64 x 64 from photos that no training has seen."""
    bsds, meta = read_pack(data / "bsds500.npz")
    held = [photo for photo, split in zip(bsds, meta["split"], strict=True) if split == "val"]
    photos = [p.resize((p.width // 2, p.height // 2), Image.Resampling.LANCZOS) for p in held]
    crops = []
    for photo in photos + read_pack(data / "set5_set14.npz")[0]:
        pixels = np.asarray(photo)
        top, left = ((s - SIDE) // 2 for s in pixels.shape[:2])
        crops.append(pixels[top : top + SIDE, left : left + SIDE])
    return Images(crops)
