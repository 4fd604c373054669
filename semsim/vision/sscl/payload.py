"""The payload: tiles of which few hold a site, and of which few are labelled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from channels.checks import check_choice
from semsim.payloads.images import ImagePayload, check_counts, refuse_idle
from semsim.payloads.kept import Kept, written
from semsim.seeds import stream
from semsim.vision.sscl.files import Tile, open_tiles, read_tile, split_sets
from semsim.vision.sscl.tiles import draw_tile, region

Split = Literal["train", "unlabelled", "labelled", "val", "test"]
SPLITS = ("train", "unlabelled", "labelled", "val", "test")
COUNTS = {"val": 500, "test": 1000}  #: procedural tiles, beside those to train on
TRAIN_TILES = 4300  #: procedural, labelled ones included
#: of drawn tiles: number of the first region of a split, and how many follow it
NUMBERED = {"train": (0, 12), "val": (12, 6), "test": (18, 6)}
KEEP_BYTES = 1 << 29  #: of tiles kept in memory
_KEPT = Kept(KEEP_BYTES)


class Sites(ImagePayload):
    """Tiles, and whether they hold a site: 1, 0, or -1 where nobody said.

    Splits are ``test``, ``val`` (on which thresholds are set) and what there is to train on:
    ``unlabelled``, ``labelled``, and ``train``, both mixed. In ``train`` each unlabelled tile comes
    once per epoch, and labelled ones are repeated until they make the share ``anchors`` of all,
    half of them with a site. Labels of unlabelled tiles are in ``truth``, which is for reports.

    Without ``path`` tiles are drawn, see :mod:`semsim.vision.sscl.tiles`. A ``path`` is one of:

    - ``unlabeled/*`` and ``labeled/{train,val,test}/{0,1}/*``, PNG, JPEG or ``.npy`` [H, W, bands]
      of 8 bits; the classes may also be called ``no_building`` and ``building``, or ``no_struct``
      and ``struct``;
    - a folder per class, or ``{train,test}/`` with a folder per class each, of which ``rare``
      names the one that becomes the site and is thinned out to ``prevalence`` in every split.

    Args:
        split: which tiles.
        count: drawn tiles of this split (of ``train`` and ``unlabelled``: those to train on, with
            the labelled ones); 4,300 to train on, 500 of ``val`` and 1,000 of ``test`` by default.
            Of files the first so many; None for all.
        path: the folder, or None for drawn tiles.
        size: side in pixels; files are scaled and cut.
        prevalence: share of tiles with a site.
        labelled: share of the tiles to train on that are labelled, where files do not say.
        contrast: of drawn walls, 0 to 1: the fainter, the harder.
        regions: of drawn tiles to train on; half as many validate, and half test. No split has a
            region of another one, however many the others have.
        told_regions: of these, where labelled tiles come from: annotators see less than satellites.
        by: ``region``: drawn tiles of ``val`` and ``test`` are of regions that nobody trained on;
            ``tile``: they are other tiles of the same regions, which flatters.
        anchors: share of labelled tiles in ``train``; 1 takes labelled ones alone.
        rare: class that becomes the site, in a folder per class.
        bands: of ``.npy`` tiles, those that become red, green and blue, from 0.
        seed: decides drawn tiles, and the order of files, of which ``count`` takes the first. Which
            files train and which test is the same for every seed.
    """

    name = "sites"

    def __init__(
        self,
        split: Split = "test",
        *,
        count: int | None = None,
        path: str | None = None,
        size: int = 64,
        prevalence: float = 0.05,
        labelled: float = 0.07,
        contrast: float = 0.28,
        regions: int = 12,
        told_regions: int = 4,
        by: Literal["region", "tile"] = "region",
        anchors: float = 0.5,
        rare: str | None = None,
        bands: tuple[int, int, int] = (4, 2, 1),
        seed: int = 0,
    ) -> None:
        check_counts(count=count, size=size, regions=regions, told_regions=told_regions)
        check_choice("split", split, SPLITS)
        check_choice("by", by, ("region", "tile"))
        _check_shares(prevalence, labelled, contrast, anchors)
        self.split, self.size, self.seed, self.contrast = split, size, seed, contrast
        self.bands = tuple(bands)
        if path is None:
            if rare is not None:
                raise ValueError(f"rare {rare} is a class of a folder; name it in path")
            refuse_idle(Sites, "with drawn tiles", bands=tuple(bands))
            self._key: tuple[Any, ...] = (size, seed, contrast)
            areas = Areas(regions, min(told_regions, regions), by == "region")
            sets = drawn_sets(split, count, prevalence, labelled, areas, seed)
        else:
            drawn = {"contrast": contrast, "regions": regions, "told_regions": told_regions}
            refuse_idle(Sites, "with the files of a path", **drawn, by=by)
            self._key = (str(Path(path).resolve()), size, self.bands)
            found = open_tiles(path, rare)
            sets = split_sets(found, prevalence, labelled, seed)
            sets = {name: spread(tiles)[:count] for name, tiles in sets.items()}
        self.tiles = _mixed(sets, anchors) if split == "train" else spread(sets[split])
        if not self.tiles:
            raise ValueError(f"{path} holds no tile for split {split}; name another")
        self.truth = [tile.site for tile in self.tiles]
        self.regions = [tile.region for tile in self.tiles]
        #: classes as they are told: -1 where a tile is not labelled
        self.labels = [tile.site if tile.told else -1 for tile in self.tiles]

    def __len__(self) -> int:
        return len(self.tiles)

    def pixels(self, index: int) -> Tensor:
        """Return one tile, uint8 [3, size, size]."""
        tile = self.tiles[index]
        key = (*self._key, tile.key, tile.site, tile.region, written(tile.file))
        (found,) = _KEPT.get(key, lambda: (self._pixels(tile),))
        return found

    def check_files(self) -> None:
        """Read every file; ValueError names the first that will not do."""
        for index, tile in enumerate(self.tiles):
            if tile.file is not None:
                self.pixels(index)

    def _pixels(self, tile: Tile) -> Tensor:
        if tile.file is not None:
            return read_tile(tile.file, self.size, self.bands)
        generator = stream(self.seed, "site tile", *tile.key)
        look = region(tile.region, self.seed)
        drawn = draw_tile(look, tile.site == 1, self.contrast, self.size, generator)
        return (255 * drawn).round().to(torch.uint8)


class Areas(NamedTuple):
    """Which regions tiles come from."""

    seen: int  #: to train on
    told: int  #: of these with labels
    apart: bool  #: whether val and test are of others

    def of(self, split: str) -> list[int]:
        """Return the regions of a split."""
        seen = _numbers("train", self.seen)
        if split == "labelled":
            return seen[: self.told]
        if split == "unlabelled" or not self.apart:
            return seen
        return _numbers(split, max(1, self.seen // 2))


def _numbers(split: str, count: int) -> list[int]:
    """Return the numbers of so many regions, which no other split has, whatever its count."""
    first, usual = NUMBERED[split]
    place, far = list(NUMBERED).index(split), sum(number for _, number in NUMBERED.values())
    beyond = (far + len(NUMBERED) * k + place for k in range(count - usual))  # splits take turns
    return [*range(first, first + min(count, usual)), *beyond]


def drawn_sets(
    split: str,
    count: int | None,
    prevalence: float,
    labelled: float,
    areas: Areas,
    seed: int,
) -> dict[str, list[Tile]]:
    """Return the drawn tiles of each split; arguments as in :class:`Sites`."""
    sets: dict[str, list[Tile]] = {}
    for name in ("val", "test"):
        number = count if name == split and count else COUNTS[name]
        sets[name] = _drawn(name, number, prevalence, areas.of(name), seed)
    total = count if split in ("train", "unlabelled", "labelled") and count else TRAIN_TILES
    told = min(max(2, round(labelled * total)), total - 1)
    if split == "labelled" and count:
        told, total = count, count + 1
    sets["labelled"] = _drawn("labelled", told, prevalence, areas.of("labelled"), seed)
    rest = _drawn("unlabelled", total - told, prevalence, areas.of("unlabelled"), seed)
    sets["unlabelled"] = [tile._replace(told=False) for tile in rest]
    return sets


def _drawn(name: str, count: int, prevalence: float, among: list[int], seed: int) -> list[Tile]:
    """Return tiles of which a share, to the tile, has a site, in regions at random."""
    sites = min(max(1, round(prevalence * count)), count)
    order = torch.randperm(count, generator=stream(seed, "sites", name, count)).tolist()
    return [
        Tile((name, index), int(index < sites), among[place % len(among)])
        for index, place in enumerate(order)
    ]


def spread(tiles: list[Tile]) -> list[Tile]:
    """Return the same tiles with sites at even distances, so that few of them show both classes."""
    yes, no = ([t for t in tiles if t.site == site] for site in (1, 0))
    at = {round(k * len(tiles) / len(yes)) for k in range(len(yes))}
    ahead, behind = iter(yes), iter(no)
    return [next(ahead if i in at else behind) for i in range(len(tiles))]


def _mixed(sets: dict[str, list[Tile]], anchors: float) -> list[Tile]:
    """Return unlabelled tiles and labelled ones, repeated to their share, half of them sites."""
    told = [[t for t in sets["labelled"] if t.site == site] for site in (0, 1)]
    if not all(told):
        raise ValueError("of the labelled tiles none has a site, or all have; label more of them")
    rest = sets["unlabelled"] if anchors < 1 else []
    wanted = len(rest) * anchors / (1 - anchors) if anchors < 1 else 2 * len(told[0])
    each = max(math.ceil(wanted / 2), 1) if anchors > 0 else 0
    return rest + [own[i % len(own)] for own in told for i in range(each)]


def _check_shares(prevalence: float, labelled: float, contrast: float, anchors: float) -> None:
    for name, share in (("prevalence", prevalence), ("labelled", labelled)):
        if not 0 < share < 1:
            raise ValueError(f"{name} is a share above 0 and below 1, got {share}; such as 0.05")
    if not 0 <= contrast <= 1:
        raise ValueError(f"contrast is a number from 0 to 1, got {contrast}")
    if not 0 <= anchors <= 1:
        raise ValueError(f"anchors is a share from 0 to 1, got {anchors}")


def tensors(sites: Sites, indices: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """Return all tiles, uint8 [N, 3, size, size], and their true classes [N]."""
    chosen = range(len(sites)) if indices is None else indices
    pixels = torch.stack([sites.pixels(i) for i in chosen])
    return pixels, torch.tensor([sites.truth[i] for i in chosen])
