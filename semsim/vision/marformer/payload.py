"""CT slices with metal artefacts beside the same slices without."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from semsim.ct.phantoms import FIELD_CM, MOST_TEETH, body_metal, dental_metal, dental_phantom
from semsim.ct.scanner import DENSITY, Material, Scan, Scanner
from semsim.payloads.ct import (
    HounsfieldSlices,
    SlicePairs,
    open_slices,
    to_mu,
)
from semsim.payloads.images import check_counts, refuse_idle
from semsim.payloads.kept import Kept, written
from semsim.seeds import stream

DENTAL: tuple[Material, ...] = ("Ti", "Fe", "Zr", "Ag")  #: implant, steel, crown, amalgam
IMPLANTS: tuple[Material, ...] = ("Ti", "Fe")
KEEP_BYTES = 1 << 30  #: of simulated slices kept in memory, by each process
_KEPT = Kept(KEEP_BYTES)


class MetalSlices(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """CT slices with metal artefacts (source) beside the same slices without metal (target).

    Grey, repeated over three channels, μ / 0.5 cm⁻¹ clipped to [0, 1]. Without ``path`` the slices
    are procedural jaws with metal on teeth, at 180 views and 2e5 photons per ray. A ``path`` is one
    of:

    - ``hu.npy`` [N, S, S] in HU and ``meta.npz`` (``pixel_mm`` or ``mm_per_px`` of a 512-pixel
      grid; ``split``, without which all test), or NIfTI volumes ``*.nii``, ``*.nii.gz`` (HU, or
      [0, 1] taken as -1000 to 3000 HU; labels and masks beside them are left out): metal is put
      into the body and scanned, with 2e7 photons per ray;
    - the tree of DeepLesion/ADN, ``{train,test}/CASE/SLICE/{gt,1,2,…}.mat``;
    - pairs of equal names in ``{train,test}/{clean,metal}/``, ``.npy`` in [0, 1] or ``.png``; pairs
      in ``{clean,metal}/`` all test.

    The split is the folder's where it has one; of volumes every fifth tests (of fewer the last).

    Args:
        count: items; all pairs, 64 phantoms, or one per slice by default. More items than slices
            put new metal into the same slices.
        size: side in pixels; 128 for phantoms, else as stored.
        path: the folder, or None for phantoms.
        split: which part. Phantoms of the two parts never coincide.
        corrupted: ``raw``, or ``li``: the scanner already bridged the metal's trace in the sinogram,
            which nobody can do later, and so sends the classical baseline.
        materials: metals to draw from, one per slice; Ti, Fe, Zr and Ag on teeth, Ti and Fe in
            bodies by default.
        metals: least and largest number of pieces of metal; few are more frequent than many. A
            phantom takes one on each of its teeth, 14 at most.
        views: projections over 180°, even; 180 up to 128 pixels, then in proportion (256: 320).
        photons: per ray in air; see above.
        seed: decides phantoms, metal and noise, together with the index.
    """  # noqa: E501 - one line of an argument

    name = "mar"

    def __init__(
        self,
        count: int | None = None,
        *,
        size: int | None = None,
        path: str | None = None,
        split: Literal["train", "test"] = "test",
        corrupted: Literal["raw", "li"] = "raw",
        materials: Sequence[Material] | None = None,
        metals: tuple[int, int] = (1, 4),
        views: int | None = None,
        photons: float | None = None,
        seed: int = 0,
    ) -> None:
        check_counts(count=count, size=size, views=views)
        if views is not None and views % 2:
            raise ValueError(f"views is even, got {views}; write {views + 1}")
        if photons is not None and not 0 < photons < math.inf:
            raise ValueError(f"photons must be > 0 and finite, got {photons}; leave it out")
        wanted = {"materials": materials, "metals": tuple(metals), "views": views}
        if materials is None:
            materials = DENTAL if path is None else IMPLANTS
        _check_choices(split, corrupted, materials, metals)
        if path is None and metals[1] > MOST_TEETH:
            raise ValueError(
                f"a jaw has up to {MOST_TEETH} teeth, each for one piece of metal, got metals "
                f"{list(metals)}; write at most [{min(metals[0], MOST_TEETH)}, {MOST_TEETH}]"
            )
        self.split, self.corrupted, self.seed = split, corrupted, seed
        self.materials, self.metals = tuple(materials), tuple(metals)
        self.views, self.photons = views, photons
        self.slices = _Phantoms(size or 128) if path is None else _open(Path(path), split, size)
        if corrupted == "li" and isinstance(self.slices, SlicePairs):
            raise ValueError(
                f"corrupted: li needs sinograms, and {path} holds finished slices; use raw"
            )
        if isinstance(self.slices, SlicePairs):
            why = f"with the finished slices of {path}"
            refuse_idle(MetalSlices, why, **wanted, photons=photons)
        total = len(self.slices)
        self.count = count or (64 if path is None else total)
        if isinstance(self.slices, SlicePairs) and self.count > total:
            raise ValueError(f"{path} holds {total} pairs for {split}, got count {self.count}")
        stored = written(*(Path(path or "") / name for name in ("hu.npy", "meta.npz")))
        decides = (path and str(Path(path).resolve()), stored, size, split, corrupted, seed)
        self._key = (*decides, self.materials, self.metals, views, photons)

    def __len__(self) -> int:
        return self.count

    def check_files(self) -> None:
        """Look at the header of every finished slice; ValueError names one that will not do."""
        if isinstance(self.slices, SlicePairs):
            self.slices.check_files()

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -self.count <= index < self.count:
            raise IndexError(f"{self.name} has {self.count} slices, asked for number {index}")
        index %= self.count
        files = self.slices.files[index] if isinstance(self.slices, SlicePairs) else ()
        key = (*self._key, index, written(*files))
        source, target = _KEPT.get(key, lambda: self._pair(index))
        return source.expand(3, -1, -1), target.expand(3, -1, -1)

    def _pair(self, index: int) -> tuple[Tensor, Tensor]:
        if isinstance(self.slices, SlicePairs):
            return self.slices.pair(index)
        scan = self.scan(index)
        source = scan.interpolated if self.corrupted == "li" else scan.corrupted
        return source, scan.clean

    def material(self, index: int) -> tuple[Material, int]:
        """Return the metal of a simulated item, and how many pieces of it, or one on each tooth."""
        generator = stream(self.seed, "metal", self.split, index)
        least, most = self.metals
        which = int(torch.randint(len(self.materials), (), generator=generator))
        count = int(torch.randint(least, most + 1, (2,), generator=generator).min())
        return self.materials[which], count

    def scan(self, index: int) -> Scan:
        """Simulate one item, N = 1, with its sinograms, the LI baseline and the metal's trace."""
        if isinstance(self.slices, SlicePairs):
            raise ValueError(f"{self.slices.path} holds finished slices; there is nothing to scan")
        material, count = self.material(index)
        generator = stream(self.seed, "slice", self.split, index)
        mu, metal, pixel_cm = self.slices.slice(index % len(self.slices), count, generator)
        size = mu.shape[-1]
        scanner = Scanner(
            size=size,
            pixel_cm=pixel_cm,
            views=self.views or max(180, 2 * (size * 5 // 8)),
            photons=self.photons or self.slices.photons,
        )
        return scanner.scan(mu[None], metal[None], [material], generator)


class _Phantoms:
    """As many jaws as one asks for."""

    photons = 2e5

    def __init__(self, size: int) -> None:
        self.size, self.pixel_cm = size, FIELD_CM / size

    def __len__(self) -> int:
        return sys.maxsize

    def slice(
        self, index: int, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, float]:
        """Return attenuation, share of metal, and the pixel's side in cm."""
        mu, teeth = dental_phantom(self.size, self.pixel_cm, generator)
        metal = dental_metal(self.size, self.pixel_cm, teeth, count, generator)
        return mu, metal, self.pixel_cm


def _open(path: Path, split: str, size: int | None) -> _Bodies | SlicePairs:
    found = open_slices(path, split, size)
    return _Bodies(found) if isinstance(found, HounsfieldSlices) else found


class _Bodies:
    """CT slices with metal in them."""

    photons = 2e7

    def __init__(self, slices: HounsfieldSlices) -> None:
        self.slices = slices

    def __len__(self) -> int:
        return len(self.slices)

    def slice(
        self, index: int, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, float]:
        """Return attenuation, share of metal, and the pixel's side in cm."""
        hounsfield, pixel_cm = self.slices.slice(index)
        return to_mu(hounsfield), body_metal(hounsfield, pixel_cm, count, generator), pixel_cm


def _check_choices(
    split: str, corrupted: str, materials: Sequence[str], metals: Sequence[int]
) -> None:
    for value, name, known in ((split, "split", "train test"), (corrupted, "corrupted", "raw li")):
        if value not in known.split():
            raise ValueError(f"{name} is {' or '.join(known.split())}, got {value!r}")
    unknown = [m for m in materials if m not in DENSITY]
    if unknown or not materials:
        raise ValueError(f"materials are out of {', '.join(DENSITY)}; got {unknown or 'none'}")
    if len(metals) != 2 or not 0 <= metals[0] <= metals[1]:
        raise ValueError(f"metals is [least, most], 0 <= least <= most, got {list(metals)}")
