"""Patches in memory, of several sources in given shares: what codecs are trained on."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from channels.checks import check_choice
from semsim.files.incoming import check_regular, reading, shown
from semsim.payloads.arrays import read_npz
from semsim.payloads.images import ImagePayload, check_counts
from semsim.seeds import stream


class Pool(ImagePayload):
    """An .npz file with patches part0, part1, ..., uint8 [N, 3, H, W], their weights, and valid.

    Each item is drawn from the parts with probabilities as their weights are, with replacement;
    weights are in the order of the parts' numbers. benchmarks/make_pool.py makes such files.

    Args:
        path: the file.
        split: ``train`` draws from the parts, ``valid`` gives what is held out, in order.
        count: how many items to draw, or how many to take of valid; None takes all of valid.
    """

    def __init__(
        self,
        path: str,
        *,
        split: Literal["train", "valid"] = "train",
        count: int | None = 100_000,
    ) -> None:
        check_choice("split", split, ("train", "valid"))
        check_counts(count=count)
        if split == "train" and count is None:
            raise ValueError("count says how many items to draw from the parts, such as 100000")
        check_regular(Path(path), "an .npz file with part0, part1, ... and weights", "path")
        with reading(path, "patches in .npz", "make it with benchmarks/make_pool.py", "path"):
            with zipfile.ZipFile(path) as archive:
                names = sorted((Path(name).stem for name in archive.namelist()), key=_number)
            wanted = ["valid"] if split == "valid" else [n for n in names if _number(n) >= 0]
            held = read_npz(Path(path), [*wanted, "weights"])
        if not wanted or not {*wanted, "weights"} <= held.keys():
            raise ValueError(
                f"path {shown(path)} holds {', '.join(names)}; it must hold part0, part1, ..., "
                "weights and valid, as benchmarks/make_pool.py writes them"
            )
        for name in wanted:
            array = held[name]
            if array.dtype.name != "uint8" or array.ndim != 4 or array.shape[1] != 3:
                raise ValueError(
                    f"path {shown(path)} holds {name} as {array.dtype} {list(array.shape)}; it "
                    "must be uint8 [N, 3, H, W]"
                )
        self.name = shown(Path(path).stem)
        self.parts = [torch.from_numpy(held[name]) for name in wanted]
        if held["weights"].dtype.kind not in "iuf":
            raise ValueError(f"path: weights are numbers, got {held['weights'].dtype}")
        weights = torch.as_tensor(held["weights"], dtype=torch.float64)
        drawn = split == "train"
        self.places = self._drawn(wanted, weights, count or 0) if drawn else self._all(count)

    def _all(self, count: int | None) -> Tensor:
        """Return part and place of the first items of the only part, [N, 2]."""
        if not len(self.parts[0]):
            raise ValueError("path: valid holds no patches, so nothing is held out; use another")
        total = len(self.parts[0]) if count is None else min(count, len(self.parts[0]))
        return torch.stack([torch.zeros(total, dtype=torch.long), torch.arange(total)], dim=1)

    def _drawn(self, names: Sequence[str], weights: Tensor, count: int) -> Tensor:
        """Return part and place of items drawn with replacement, [N, 2]."""
        if weights.shape != (len(self.parts),) or not bool(
            (weights >= 0).all() and 0 < weights.sum() < math.inf
        ):
            raise ValueError(
                f"path: {len(self.parts)} parts need as many weights of 0 or more, finite, got "
                f"{weights.tolist()}"
            )
        sizes = [len(part) for part in self.parts]
        if empty := [n for n, w, size in zip(names, weights, sizes, strict=True) if w and not size]:
            raise ValueError(
                f"path: {', '.join(empty)} holds no patches to draw; make its weight 0, or fill it"
            )
        return draw_places(weights.tolist(), sizes, count, stream(0, "pool", count))

    def __len__(self) -> int:
        return len(self.places)

    def pixels(self, index: int) -> Tensor:
        """Return one patch, uint8 [3, H, W]."""
        part, place = self.places[index].tolist()
        return self.parts[part][place]


def _number(name: str) -> int:
    """Return 12 of part12, and -1 of what is no part."""
    found = re.fullmatch(r"part([0-9]+)", name)
    return int(found[1]) if found else -1


def draw_places(
    weights: Sequence[float], sizes: Sequence[int], count: int, generator: torch.Generator
) -> Tensor:
    """Return part and place in it of items drawn with replacement, int64 [count, 2].

    Args:
        weights: how often each part is drawn from.
        sizes: how many items each part has.
        count: how many to draw.
        generator: decides which.
    """
    chances = torch.tensor(weights, dtype=torch.float64)
    part = torch.multinomial(chances, count, replacement=True, generator=generator)
    unit = torch.rand(count, generator=generator, dtype=torch.float64)
    return torch.stack([part, (unit * torch.tensor(sizes)[part]).long()], dim=1)
