"""Low-light photos, from folders or darkened here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from semsim.payloads.folder import Folder
from semsim.payloads.images import ImagePayload, check_counts, to_float, window
from semsim.payloads.photos import Photos
from semsim.seeds import stream

DARKNESS = (0.05, 0.4)
NOISE = (0.001, 0.004)
Split = Literal["train", "val", "test"]
LOL_FOLDERS = {"train": ("our485", "train"), "val": ("val",), "test": ("eval15", "test")}


def darken(
    image: Tensor,
    generator: torch.Generator,
    *,
    darkness: tuple[float, float] = DARKNESS,
    noise: tuple[float, float] = NOISE,
) -> Tensor:
    """Return a photo as a camera might see it at night, rounded to 8 bits.

        S = k m I^1.5 + n,   variance of n = shot k m I^1.5 + read²

    Inferred: log k is uniform; m is a smooth map between 0.5 and 1, all channels alike.

    Args:
        image: a normally lit photo I, [3, H, W] in [0, 1].
        generator: draws k, m and n, on the CPU.
        darkness: least and largest k.
        noise: shot, in units of full scale, and read, a standard deviation; (0, 0) for none.
    """
    low, high = (math.log(k) for k in darkness)
    k = math.exp(low + (high - low) * float(torch.rand((), generator=generator)))
    lamps = 0.5 + 0.5 * torch.rand(1, 1, 3, 3, generator=generator)
    light = F.interpolate(lamps, size=image.shape[1:], mode="bilinear", align_corners=True)[0]
    clean = k * light * image.pow(1.5)
    sigma = (noise[0] * clean + noise[1] ** 2).sqrt()
    dark = clean + sigma * torch.randn(image.shape, generator=generator)
    return (dark.clamp(0, 1) * 255).round() / 255


class LowLight(ImagePayload):
    """Low-light photos, and as target the same scene in good light.

    Without ``path`` the bundled photos, darkened by :func:`darken`. A ``path`` may be a copy of
    LOL, {our485,eval15}/{low,high} or {train,val,test}/{low,high}; a folder with low and high of
    its own; or a folder of low-light images without any reference, such as LIME, NPE, DICM, MEF, VV
    or NASA: its targets are empty, so that metrics that need a reference refuse it.

    Args:
        path: the folder.
        split: of a copy of LOL; test, which is eval15, where None.
        darkness: least and largest factor of :func:`darken`. Given with ``path``, the folder holds
            well-lit photos, which are darkened.
        noise: shot and read noise of :func:`darken`; inferred (0.001, 0.004) where None.
        resize: scale the shorter side to this many pixels, before anything is darkened.
        crop: cut a square with this side in pixels from the centre.
        count: how many items; more than there are photos only where they are darkened, each time
            differently.
        seed: decides the darkening, together with the index.

    Source: Wei, Wang, Yang, Liu, Deep Retinex decomposition for low-light enhancement (2018), LOL.
    """

    name = "lowlight"

    def __init__(
        self,
        path: str | None = None,
        *,
        split: Split | None = None,
        darkness: tuple[float, float] | None = None,
        noise: tuple[float, float] | None = None,
        resize: int | None = None,
        crop: int | None = None,
        count: int | None = None,
        seed: int = 0,
    ) -> None:
        check_counts(count=count)
        self._darkens = path is None or darkness is not None
        if self._darkens and split is not None:
            raise ValueError(f"split {split} is of a copy of LOL, whose photos are dark already")
        if not self._darkens and noise is not None:
            raise ValueError("noise is of photos that are darkened; give darkness, or no noise")
        self.seed, self._darkness, self._noise = seed, darkness or DARKNESS, noise or NOISE
        _check_darkness(self._darkness, self._noise)
        self._dark: ImagePayload
        self._bright: ImagePayload | None
        if path is None:
            self._dark = self._bright = Photos(resize=resize, crop=crop)
        elif self._darkens:
            self._dark = self._bright = Folder(path, resize=resize, crop=crop)
        else:
            found = [Folder(str(f), resize=resize, crop=crop) for f in _folders(Path(path), split)]
            _pair(found)
            self._dark, self._bright = found[0], found[1] if len(found) > 1 else None
        total = len(self._dark)
        self._count = count or total
        if not self._darkens:
            window(total, 0, count, self.name)

    def __len__(self) -> int:
        return self._count

    def check_files(self) -> tuple[int, int] | None:
        """Return the size of the largest image after looking at the header of every file."""
        largest = None
        for folder in (self._bright, self._dark):
            if look := getattr(folder, "check_files", None):
                largest = look()
        return largest

    def pixels(self, index: int) -> Tensor:
        """Return one low-light image, uint8 [3, H, W]."""
        pixels = self._dark.pixels(index % len(self._dark))
        if not self._darkens:
            return pixels
        generator = stream(self.seed, "lowlight", index)
        dark = darken(to_float(pixels), generator, darkness=self._darkness, noise=self._noise)
        return (dark * 255).round().to(torch.uint8)

    def _item(self, source: Tensor, index: int) -> tuple[Tensor, Tensor]:
        if self._bright is None:
            return source, source.new_empty(0)
        target = to_float(self._bright.pixels(index % len(self._bright)))
        if target.shape != source.shape:
            raise ValueError(
                f"item {index} is {list(source.shape)} in low and {list(target.shape)} in high "
                "light; a pair shows the same pixels"
            )
        return source, target


def _check_darkness(darkness: tuple[float, float], noise: tuple[float, float]) -> None:
    if not 0 < darkness[0] <= darkness[1] <= 1:
        raise ValueError(
            f"darkness is [least, largest], 0 < least <= largest <= 1, got {list(darkness)}"
        )
    if not all(0 <= share < math.inf for share in noise):
        raise ValueError(f"noise is [shot, read], finite, neither below 0, got {list(noise)}")


def _folders(path: Path, split: Split | None) -> list[Path]:
    """Return the folder of dark images, and that of their references where there is one."""
    if not path.is_dir():
        return [path]  # Folder says what is wrong
    known = [name for names in LOL_FOLDERS.values() for name in names]
    there = [name for name in known if (path / name / "low").is_dir()]
    if there:
        wanted = [path / n for n in LOL_FOLDERS[split or "test"] if n in there]
        if not wanted:
            raise ValueError(f"split {split or 'test'}: {path} has only {', '.join(there)}")
        return [wanted[0] / "low", wanted[0] / "high"]
    if split is not None:
        raise ValueError(
            f"split {split}: {path} is no copy of LOL, which has {' or '.join(LOL_FOLDERS[split])} "
            "with low and high inside"
        )
    return [path / "low", path / "high"] if (path / "low").is_dir() else [path]


def _pair(folders: list[Folder]) -> None:
    """Bring the images of high into the order of those of low, by their names."""
    if len(folders) < 2:
        return
    found = [{file.stem: file for file in folder.files} for folder in folders]
    where = f"of {folders[0].files[0].parents[1]}"
    if alone := sorted(found[0].keys() ^ found[-1].keys()):
        side = "low" if alone[0] in found[0] else "high"
        raise ValueError(
            f"images in low and high have the same names, but {alone[0]} is only in {side} {where}"
        )
    for folder, of_stem in zip(folders, found, strict=True):
        if len(of_stem) < len(folder.files):
            again = next(f for f in folder.files if f not in of_stem.values())
            raise ValueError(
                f"several images of {again.parent.name} {where} are called {again.stem}; keep one"
            )
    folders[-1].files = [found[-1][file.stem] for file in folders[0].files]
