"""Tiles in folders: which file goes into which split, and how it becomes pixels."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from semsim.files.incoming import check_regular, reading, shown
from semsim.mistakes import looked_in
from semsim.payloads.imagefile import SUFFIXES, open_image
from semsim.payloads.images import fit, to_tensor
from semsim.seeds import stream

PAIRS = (("0", "1"), ("no_building", "building"), ("no_struct", "struct"))  #: names of classes
SPLIT_SEED = 0  #: of which files go where, whatever the payload's seed
SHARES = {"val": 0.15, "test": 0.3}  #: of a folder per class without train and test


class Tile(NamedTuple):
    """One tile before anybody looked at it."""

    key: tuple[object, ...]  #: what tells it from others
    site: int  #: 1 where it holds a site; the hidden truth where it is not ``told``
    region: int = -1  #: -1 where it is not known
    told: bool = True  #: whether its class is known in training
    file: Path | None = None


class Found(NamedTuple):
    """What a folder holds: sets that it names, and tiles that are still to be split."""

    sets: dict[str, list[Tile]]
    rest: list[Tile]


def open_tiles(path: str, rare: str | None) -> Found:
    """Return the tiles of a folder; see :class:`semsim.vision.sscl.Sites` for its layouts."""
    root = Path(path)
    if not root.is_dir():
        raise ValueError(
            f"path {shown(path)} is no folder{looked_in(path)}; name one that holds tiles"
        )
    if (root / "labeled").is_dir():
        named = {"train": "labelled", "val": "val", "test": "test"}
        sets = {ours: _pair(root / "labeled" / name, rare) for name, ours in named.items()}
        loose = [Tile((str(f),), 0, told=False, file=f) for f in _files(root / "unlabeled")]
        return Found(sets | {"unlabelled": loose}, [])
    if (root / "test").is_dir() and (root / "train").is_dir():
        sets = {"test": _pair(root / "test", rare)}
        if (root / "val").is_dir():
            sets["val"] = _pair(root / "val", rare)
        return Found(sets, _pair(root / "train", rare))
    return Found({}, _pair(root, rare))


def split_sets(
    found: Found, prevalence: float, labelled: float, seed: int
) -> dict[str, list[Tile]]:
    """Return the tiles of each split, thinned out to the prevalence.

    A folder with ``labeled`` and ``unlabeled`` tiles is left as it is. Any other is thinned out in
    every split, also where it names ``train``, ``val`` and ``test`` itself.

    Args:
        found: of :func:`open_tiles`.
        prevalence: share of tiles with a site.
        labelled: share of the tiles to train on whose class is told.
        seed: decides the order within a split. Which tiles go where does not hang on it, or a
            training with another seed would see what is measured.
    """
    if "labelled" in found.sets:
        return found.sets
    sets = dict(found.sets)
    rest = _shuffled(found.rest, SPLIT_SEED, "files")
    total = len(rest)
    for name, share in SHARES.items():
        if name not in sets:
            sets[name], rest = _taken(rest, share * total / max(len(rest), 1))
    sets = {name: _thinned(tiles, prevalence) for name, tiles in sets.items()}
    train = _thinned(rest, prevalence)
    sets["labelled"], hidden = _taken(train, labelled)
    sets["unlabelled"] = [tile._replace(told=False) for tile in hidden]
    return {name: _shuffled(tiles, seed, name) for name, tiles in sets.items()}


def _taken(tiles: list[Tile], share: float) -> tuple[list[Tile], list[Tile]]:
    """Return a share of each class, at least one tile, and the rest."""
    taken, rest = list[Tile](), list[Tile]()
    for site in (0, 1):
        own = [tile for tile in tiles if tile.site == site]
        count = min(max(1, round(share * len(own))), len(own))
        taken += own[:count]
        rest += own[count:]
    return taken, rest


def _thinned(tiles: list[Tile], prevalence: float) -> list[Tile]:
    """Return all tiles without a site, and as many with one as the prevalence allows."""
    no, yes = ([t for t in tiles if t.site == site] for site in (0, 1))
    most = max(1, round(len(no) * prevalence / (1 - prevalence)))
    return no + yes[:most]


def _shuffled(tiles: list[Tile], seed: int, label: str) -> list[Tile]:
    order = torch.randperm(len(tiles), generator=stream(seed, "sites", label)).tolist()
    return [tiles[i] for i in order]


def _pair(folder: Path, rare: str | None) -> list[Tile]:
    """Return the tiles of a folder per class; ``rare`` or the known names say which is the site."""
    if not folder.is_dir():
        raise ValueError(f"{shown(folder)} is missing; it holds a folder per class")
    classes = sorted(f.name for f in folder.iterdir() if f.is_dir())
    site = rare or next((yes for no, yes in PAIRS if {no, yes} == set(classes)), None)
    if site is None or site not in classes:
        told = f"rare: {rare} is none of them" if rare else "none is known as the site"
        raise ValueError(
            f"{shown(folder)} has the classes {', '.join(classes) or 'none'}, and {told}; "
            "write one of them in rare"
        )
    return [
        Tile((str(f),), int(name == site), file=f)
        for name in classes
        for f in _files(folder / name)
    ]


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"{shown(folder)} is missing; it holds tiles")
    kinds = (*SUFFIXES, ".npy")
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in kinds and f.is_file())


def read_tile(file: Path, size: int, bands: tuple[int, ...]) -> Tensor:
    """Return a tile of a file, uint8 [3, size, size], scaled and cut to a square.

    Args:
        file: an image, or ``.npy`` [H, W, bands] of 8 bits.
        size: side in pixels.
        bands: which become red, green and blue.
    """
    if file.suffix.lower() != ".npy":
        return to_tensor(fit(open_image(file), size, size, what=shown(file)))
    import numpy as np
    from PIL import Image

    check_regular(file, "an .npy file")
    with reading(file, "a tile [H, W, bands] of 8 bits", "replace or remove the file"):
        values = np.load(file, allow_pickle=False)
        if values.ndim != 3 or values.dtype != np.uint8:
            raise ValueError(f"it holds {values.dtype} {list(values.shape)}")
        if not all(0 <= band < values.shape[2] for band in bands) or len(bands) != 3:
            raise ValueError(f"bands {list(bands)} are not three of its {values.shape[2]}")
        image = Image.fromarray(np.ascontiguousarray(values[:, :, list(bands)]))
        return to_tensor(fit(image, size, size, what=shown(file)))
