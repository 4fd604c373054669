"""A folder of image files."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from semsim.files.incoming import shown
from semsim.mistakes import looked_in
from semsim.payloads.imagefile import SUFFIXES, look, open_image
from semsim.payloads.images import (
    ImagePayload,
    check_counts,
    check_crop,
    fit,
    to_tensor,
    window,
)
from semsim.seeds import stream

KEEP_BYTES = 2 << 30  # decoded pixels kept in memory; a larger set is decoded again when used again


class Folder(ImagePayload):
    """Images of a folder in the order of their sorted names.

    With ``shrink`` each item is a random training patch instead: a random square of a photo,
    ``f`` times larger than ``crop`` with ``f`` uniform in ``shrink``, scaled down to ``crop``, so
    that neither the camera's noise nor JPEG's blocks survive; a photo too small for that is scaled
    down by what it allows. Index and seed alone decide a patch.

    Args:
        path: the folder.
        resize: scale the shorter side to this many pixels.
        crop: cut a square with this side in pixels from the centre.
        recursive: also look into subfolders.
        classes: each subfolder is a class, in sorted order, and the target is its number.
        start: first file to take; negative counts from the end.
        count: how many files to take; None takes all that follow.
        shrink: (least, largest) factor by which random patches are scaled down, at least 1.
        patches: random patches per photo, with ``shrink``.
        seed: decides the patches.
    """

    def __init__(
        self,
        path: str,
        *,
        resize: int | None = None,
        crop: int | None = None,
        recursive: bool = False,
        classes: bool = False,
        start: int = 0,
        count: int | None = None,
        shrink: tuple[float, float] | None = None,
        patches: int = 1,
        seed: int = 0,
    ) -> None:
        check_counts(resize=resize, crop=crop, patches=patches)
        _check_shrink(shrink, crop, patches)
        files = _files(Path(path), recursive or classes)
        self.name = shown(Path(path).resolve().name)
        self._fit = (resize, None if shrink else crop)
        self._crop, self._shrink, self._patches, self._seed = crop, shrink, patches, seed
        self.classes = _classes(Path(path), files) if classes else []
        self.files = [files[i] for i in window(len(files), start, count, str(path))]
        if classes:
            of_file = [self.classes.index(f.relative_to(path).parts[0]) for f in self.files]
            self.labels = [label for label in of_file for _ in range(patches)]
        self._kept: dict[int, Tensor] = {}
        self._room = KEEP_BYTES

    @property
    def item_shape(self) -> tuple[int, ...] | None:
        """Shape of every source, where they are cut to one."""
        return None if self._crop is None else (3, self._crop, self._crop)

    def __len__(self) -> int:
        return len(self.files) * self._patches

    def pixels(self, index: int) -> Tensor:
        """Return one image or patch, uint8 [3, H, W]."""
        photo = self._photo(index // self._patches)
        if self._shrink is None or self._crop is None:
            return photo
        return _patch(photo, self._crop, self._shrink, stream(self._seed, "patch", index))

    def check_files(self) -> tuple[int, int]:
        """Return the size of the largest image after looking at the header of every file.

        ValueError names the first file that will not do.

        It costs about 0.1 ms per file. A file that this process has looked at is looked at again
        only where its size or its time has changed.
        """
        resize, largest = self._fit[0], (0, 0)
        for file in self.files:
            width, height = _size(file)
            if resize is not None:
                scale = resize / min(width, height)
                width, height = round(width * scale), round(height * scale)
            check_crop((width, height), self._crop, shown(file))
            largest = max(largest, (width, height), key=math.prod)
        return largest if self._crop is None else (self._crop, self._crop)

    def _photo(self, number: int) -> Tensor:
        if number in self._kept:
            return self._kept[number]
        file = self.files[number]
        photo = to_tensor(fit(open_image(file), *self._fit, what=shown(file)))
        if photo.numel() <= self._room:
            self._kept[number] = photo
            self._room -= photo.numel()
        return photo


def _size(file: Path) -> tuple[int, int]:
    """Return width and height of an image file, from its header."""
    try:
        facts = file.stat()
    except OSError:
        return look(file)  # it says what is wrong
    key = (facts.st_size, facts.st_mtime_ns, facts.st_ino)
    if _SEEN.get(file, (None,))[0] != key:
        _SEEN[file] = key, look(file)
    return _SEEN[file][1]


_SEEN: dict[Path, tuple[tuple[int, ...], tuple[int, int]]] = {}  #: file to (facts, its size)


def _check_shrink(shrink: tuple[float, float] | None, crop: int | None, patches: int) -> None:
    if shrink is None:
        if patches != 1:
            raise ValueError(f"patches {patches} needs shrink; shrink: [1, 1] gives plain crops")
        return
    if len(shrink) != 2 or not 1 <= shrink[0] <= shrink[1]:
        raise ValueError(f"shrink is [least, largest], 1 <= least <= largest, got {list(shrink)}")
    if crop is None:
        raise ValueError("shrink makes square patches and needs their side: give crop, such as 128")


def _files(path: Path, recursive: bool) -> list[Path]:
    if not path.is_dir():
        raise ValueError(
            f"path {shown(path)} is not a folder{looked_in(path)}; give a folder that holds "
            "image files"
        )
    found = path.rglob("*") if recursive else path.iterdir()
    files = sorted(f for f in found if f.suffix.lower() in SUFFIXES and f.is_file())
    if not files:
        where = "" if recursive else "; for images in subfolders set recursive: true"
        raise ValueError(f"path {path} holds no image ({', '.join(SUFFIXES)}){where}")
    return files


def _classes(path: Path, files: list[Path]) -> list[str]:
    loose = [f for f in files if f.parent == path]
    if loose:
        raise ValueError(
            f"classes: true takes each subfolder of {path} as a class, but {loose[0].name} lies "
            "outside of any; move it into its class"
        )
    return sorted({f.relative_to(path).parts[0] for f in files})


def _patch(
    photo: Tensor, side: int, shrink: tuple[float, float], generator: torch.Generator
) -> Tensor:
    from PIL import Image

    height, width = photo.shape[1:]
    if min(height, width) < side:
        raise ValueError(
            f"crop {side} is larger than a photo of {width}x{height} pixels; use a smaller crop"
        )
    u, v, w = torch.rand(3, generator=generator).tolist()
    largest = min(shrink[1], min(height, width) / side)
    region = side * (min(shrink[0], largest) + u * max(0.0, largest - shrink[0]))
    left, top = v * (width - region), w * (height - region)
    y, x = int(top), int(left)  # hand Pillow only what it needs
    cut = photo[:, y : int(top + region) + 1, x : int(left + region) + 1].permute(1, 2, 0)
    right = min(left - x + region, cut.shape[1])  # not beyond the edge by a rounding error
    bottom = min(top - y + region, cut.shape[0])
    small = Image.fromarray(cut.contiguous().numpy())
    return to_tensor(
        small.resize((side, side), Image.Resampling.LANCZOS, box=(left - x, top - y, right, bottom))
    )
