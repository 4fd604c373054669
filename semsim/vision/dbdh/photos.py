"""The payload: photos of pictures with a hidden code, made or prepared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from channels.checks import check_choice
from semsim.files.incoming import reading
from semsim.nn.geometry import homography, order_corners, square
from semsim.payloads.folder import Folder
from semsim.payloads.imagefile import look, open_image
from semsim.payloads.images import check_counts, refuse_idle, to_float, to_tensor
from semsim.payloads.kept import Kept
from semsim.payloads.photos import Photos
from semsim.seeds import stream
from semsim.vision.dbdh.camera import Capture, photograph, uniform
from semsim.vision.dbdh.embedders import Embedding, make_embedder
from semsim.vision.dbdh.message import BITS

Split = Literal["all", "train", "val", "test"]
KEEP_BYTES = 2 << 30  #: of photos kept in memory; what comes later is made or read each time


class MarkedPhotos(Dataset[tuple[Tensor, Tensor]]):
    """Photos of pictures with a hidden code; decided by index and seed alone.

    The source is the photo, [3, size, size]; the target are the region's corners, clockwise from
    the top left, x and y in pixels, then the 30 bits: [38].

    Args:
        count: number of photos; None takes one per cover, or all of a prepared set.
        size: height and width of covers and photos in pixels, a multiple of 32.
        path: a folder of covers, searched recursively (such as ``MIRFlickr/im*.jpg``, COCO's
            ``train2017/*.jpg``, DIV2K's ``*_HR/*.png``), or a prepared set with
            ``{split}/images/*.png`` and ``{split}/labels.json``; None takes the bundled photos.
        split: which folder of a prepared set; of a folder of covers all files, or the first 90 %
            (train), the next 5 % (val), the last 5 % (test). The bundled photos are not split.
        embedder: ``pimog`` (trained) or ``spread`` (key-seeded, much harder to find).
        key: key of ``spread``.
        strength: rms of the residual within the region, on the scale 0 to 255; 0 hides nothing. Two
            numbers are the ends between which each photo draws its own, evenly in its logarithm.
        capture: ``print`` or ``screen``, both with perspective, ``none``, or ``both``, of which
            each photo draws one.
        side: least and largest side of the region, as a share of ``size``.
        turns: whether the camera is held in any of four ways.
        seed: decides covers' crops, places, messages and captures.
    """

    name = "marked_photos"

    def __init__(
        self,
        count: int | None = 200,
        *,
        size: int = 128,
        path: str | None = None,
        split: Split = "all",
        embedder: Embedding = "pimog",
        key: int = 0,
        strength: float | tuple[float, float] = 4.0,
        capture: Capture | Literal["both"] = "screen",
        side: tuple[float, float] = (0.3, 0.6),
        turns: bool = True,
        seed: int = 0,
    ) -> None:
        check_counts(count=count, size=size)
        _check_photos(size, split, capture, strength, side)
        self.size, self.split, self.seed = size, split, seed
        self.strength, self.capture = strength, capture
        self.options: dict[str, Any] = {"side": tuple(side), "turns": turns}
        self.method = make_embedder(embedder, key)
        self._kept = Kept(KEEP_BYTES)
        root = None if path is None else Path(path)
        labels = None if root is None else _prepared(root, split)
        #: of a prepared set (file, target) of each photo, else covers to make photos of
        self.source: list[tuple[Path, Tensor]] | Photos | Folder = labels or _covers(root, split)
        #: what the codes are made with; not known of a prepared set
        self.embedding = None if labels else (embedder, key if embedder == "spread" else 0)
        if labels:
            made = {"strength": strength, "capture": capture, "side": tuple(side), "turns": turns}
            why = f"with the finished photos of {path}"
            refuse_idle(MarkedPhotos, why, embedder=embedder, key=key, **made)
        self.count = len(self.source) if count is None else count
        if labels and self.count > len(labels):
            raise ValueError(
                f"count {count} asks for more than the {len(labels)} photos that {path} has in "
                f"{split}; write count: null for all"
            )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} photos, asked for number {index}")
        index %= len(self)
        pixels, target = self._kept.get(index, lambda: self._photo(index))
        return to_float(pixels), target.clone()

    def check_files(self) -> None:
        """Look at the header of every file; ValueError names the first that will not do."""
        if isinstance(self.source, Folder):
            self.source.check_files()
        elif isinstance(self.source, list):
            for file, _ in self.source[: self.count]:
                self._check_size(file, look(file))

    def _photo(self, index: int) -> tuple[Tensor, Tensor]:
        if isinstance(self.source, list):
            photo, target = self._read(*self.source[index])
        else:
            photo, target = self._make(self.source, index)
        return (255 * photo).round().to(torch.uint8), target

    def _make(self, covers: Photos | Folder, index: int) -> tuple[Tensor, Tensor]:
        g = stream(self.seed, "marked", self.split, index)
        cover, background = (self._patch(covers, index + i, g) for i in (0, 1))
        how: dict[str, Any] = {"strength": self._strength(index), "capture": self._capture(index)}
        with torch.no_grad():
            photo, corners, bits = photograph(
                cover, background, self.method, g, **how, **self.options
            )
        return photo[0], torch.cat([corners.flatten(), bits.flatten()])

    def _strength(self, index: int) -> float:
        if not isinstance(self.strength, Sequence):
            return self.strength
        low, high = self.strength
        g = stream(self.seed, "strength", self.split, index)
        return low * (high / low) ** float(uniform(g, 0, 1))

    def _capture(self, index: int) -> Capture:
        if self.capture != "both":
            return self.capture
        g = stream(self.seed, "capture", self.split, index)  # not in turn: covers go round by index
        return "screen" if uniform(g, 0, 1) < 0.5 else "print"

    def _patch(self, covers: Photos | Folder, number: int, g: torch.Generator) -> Tensor:
        """Return a random square of a cover, shrunk by 1 to 2.2, [1, 3, size, size]."""
        photo = covers.pixels(number % len(covers))
        short = min(photo.shape[1:])
        side = min(short, round(self.size * float(uniform(g, 1, 2.2))))
        top, left = (int(uniform(g, 0, 1) * (n - side + 1)) for n in photo.shape[1:])
        square_ = to_float(photo[None, :, top : top + side, left : left + side])
        return F.interpolate(
            square_, (self.size, self.size), mode="bicubic", antialias=True, align_corners=False
        ).clamp(0, 1)

    def _read(self, file: Path, target: Tensor) -> tuple[Tensor, Tensor]:
        photo = to_float(to_tensor(open_image(file)))
        self._check_size(file, (photo.shape[2], photo.shape[1]))
        return photo, target

    def _check_size(self, file: Path, size: tuple[int, int]) -> None:
        if size != (self.size, self.size):
            raise ValueError(
                f"{file} has {size[0]}x{size[1]} pixels, size is {self.size}; set "
                "size to that of the prepared photos, which are square"
            )


def _check_photos(
    size: int,
    split: str,
    capture: str,
    strength: float | Sequence[float],
    side: Sequence[float],
) -> None:
    if size % 32:
        raise ValueError(f"size is a multiple of 32, got {size}; write {max(32, size // 32 * 32)}")
    check_choice("split", split, ("all", "train", "val", "test"))
    check_choice("capture", capture, ("none", "print", "screen", "both"))
    if isinstance(strength, Sequence):
        if len(strength) != 2 or not 0 < strength[0] <= strength[1] <= 64:
            raise ValueError(
                f"strength between two ends is [least, largest] with 0 < least <= largest <= 64, "
                f"got {list(strength)}"
            )
    elif not 0 <= strength <= 64:
        raise ValueError(f"strength is an rms between 0 and 64 on the scale to 255, got {strength}")
    if len(side) != 2 or not 0.1 <= side[0] <= side[1] <= 0.7:
        raise ValueError(f"side is [least, largest] within 0.1 to 0.7, got {list(side)}")


def _covers(root: Path | None, split: str) -> Photos | Folder:
    if root is None:
        return Photos()
    everything = Folder(str(root), recursive=True)
    if split == "all":
        return everything
    first, last = {"train": (0, 0.9), "val": (0.9, 0.95), "test": (0.95, 1)}[split]
    start, stop = round(len(everything) * first), round(len(everything) * last)
    if start == stop:
        raise ValueError(
            f"{root} has {len(everything)} images, too few for split {split}; use split: all"
        )
    return Folder(str(root), recursive=True, start=start, count=stop - start)


def _prepared(root: Path, split: str) -> list[tuple[Path, Tensor]] | None:
    """Return (file, target) of a prepared set, or None where the folder is none."""
    labels = root / split / "labels.json"
    if not labels.is_file():
        there = sorted(f.parent.name for f in root.glob("*/labels.json"))
        if there:
            raise ValueError(
                f"{root} is a prepared set and {labels} is missing; split is one of {there}"
            )
        return None
    what = f"a list of {{file, vertices (4 x 2), bits ({BITS}), H}}"
    with reading(labels, what, "write it with semsim.vision.dbdh.photos.write_set"):
        rows = json.loads(labels.read_text(encoding="utf-8"))
        if not isinstance(rows, list) or not rows:
            raise ValueError("no photo is in it")
        found = []
        for row in rows:
            corners = torch.tensor(row["vertices"], dtype=torch.float32)
            bits = torch.tensor(row["bits"], dtype=torch.float32)
            told = bits.shape == (BITS,) and set(row["bits"]) <= {0, 1}
            if not told or corners.shape != (4, 2) or not bool(corners.isfinite().all()):
                raise ValueError(f"vertices are 4 x 2 and bits {BITS} of 0 or 1, in {row['file']}")
            file = labels.parent / "images" / Path(row["file"]).name
            found.append((file, torch.cat([order_corners(corners[None]).flatten(), bits])))
    return found


def write_set(photos: MarkedPhotos, folder: str | Path) -> Path:
    """Write photos as a prepared set, ``FOLDER/{split}/images/*.png`` and ``labels.json``.

    ``H`` sends the unit square, clockwise from (0, 0), to the region's corners in the photo.
    """
    from PIL import Image

    out = Path(folder) / photos.split
    (out / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(len(photos)):
        photo, target = photos[index]
        corners, name = target[:8].view(1, 4, 2), f"{index:05d}.png"
        pixels = (255 * photo).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(pixels).save(out / "images" / name)
        h = homography(square(1, corners)[None], corners)[0]
        rows.append({"file": name, "vertices": corners[0].tolist(),
                     "bits": target[8:].int().tolist(), "H": h.tolist()})  # fmt: skip
    (out / "labels.json").write_text(json.dumps(rows), encoding="utf-8")
    return out
