"""CT slices in public layouts: Hounsfield units, volumes, pairs with and without metal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from semsim.files.incoming import check_regular, reading, shown
from semsim.mistakes import looked_in
from semsim.payloads.arrays import read_npz
from semsim.payloads.imagefile import look, read_grey
from semsim.ranges import check_range, clip

WATER_MU = 0.192  #: cm⁻¹ at the reference energy, 70 keV
WINDOW_MU = 0.5  #: cm⁻¹ that is shown as 1 (ADN)
MOST_SLICES = 1 << 15  #: of a volume
MOST_PIXELS = 1 << 26  #: of a slice
UNPACK = "unpack it again"


class HounsfieldSlices:
    """Slices in HU, each with its pixel's side in cm; ``load`` reads one as [H, W]."""

    def __init__(
        self, load: Callable[[int], Tensor], pixel_cm: Sequence[float], size: int | None
    ) -> None:
        self.load, self.pixel_cm, self.size = load, list(pixel_cm), size
        for number, side in enumerate(self.pixel_cm):
            if not 0 < side < 10:
                raise ValueError(
                    f"slice {number} has pixels of {10 * side:g} mm; write their side, such as 0.5"
                )

    def __len__(self) -> int:
        return len(self.pixel_cm)

    def slice(self, index: int) -> tuple[Tensor, float]:
        """Return a slice [S, S] in HU, and its pixel's side in cm."""
        hounsfield, pixel_cm = _square(self.load(index)), self.pixel_cm[index]
        if self.size is None or self.size == len(hounsfield):
            return hounsfield, pixel_cm
        return _resize(hounsfield, self.size), pixel_cm * len(hounsfield) / self.size


class SlicePairs:
    """Finished pairs: ``files`` are (corrupted, clean), ``load`` reads one in [0, 1]."""

    def __init__(
        self,
        path: Path,
        files: Sequence[tuple[Path, Path]],
        load: Callable[[Path], Tensor],
        size: int | None,
    ) -> None:
        self.path, self.files, self.load, self.size = path, list(files), load, size

    def __len__(self) -> int:
        return len(self.files)

    def check_files(self) -> None:
        """Look at the header of every file; ValueError names the first that will not do."""
        for file in {file: None for pair in self.files for file in pair}:
            _check_header(file)

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """Return corrupted and clean slice, [1, S, S] each."""
        corrupted, clean = (self.load(file) for file in self.files[index])
        if corrupted.shape != clean.shape or clean.dim() != 2:
            raise ValueError(
                f"{self.files[index][0]} is {list(corrupted.shape)} and its clean slice "
                f"{list(clean.shape)}; both are [H, W], of one size"
            )
        images = [_square(image) for image in (corrupted, clean)]
        if self.size is not None:
            images = [_resize(image, self.size) for image in images]
        return clip(images[0][None]), clip(images[1][None])


def to_mu(hounsfield: Tensor) -> Tensor:
    """Return attenuation at 70 keV in cm⁻¹ of Hounsfield units; air and below are 0."""
    return WATER_MU * (1 + hounsfield / 1000).clamp(min=0)


def _square(image: Tensor) -> Tensor:
    """Pad the shorter side evenly with the least value, so that [H, W] becomes [S, S]."""
    height, width = image.shape
    side, least = max(height, width), float(image.min())
    top, left = (side - height) // 2, (side - width) // 2
    return F.pad(image, (left, side - width - left, top, side - height - top), value=least)


def _resize(image: Tensor, size: int) -> Tensor:
    """Return [size, size]: the mean over each new pixel's area."""
    if size > len(image):
        raise ValueError(f"size {size} is more than the {len(image)} pixels stored; use fewer")
    return F.interpolate(image[None, None], (size, size), mode="area")[0, 0]


def open_slices(path: Path, split: str, size: int | None) -> HounsfieldSlices | SlicePairs:
    """Look at a folder and return what it holds."""
    if not path.is_dir():
        raise ValueError(
            f"path {path} is not a folder{looked_in(path)}; leave it out for procedural phantoms"
        )
    if (path / "hu.npy").is_file():
        return _open_hounsfield(path, split, size)
    if volumes := sorted(f for f in path.rglob("*") if _is_volume(f.relative_to(path))):
        return _open_volumes(volumes, split, size)
    if truths := sorted((path / split).rglob("gt.mat")):
        files = [
            (file, truth)
            for truth in truths
            for file in sorted(truth.parent.glob("*.mat"), key=_number)
            if file.stem.isdigit()
        ]
        if files:
            return SlicePairs(path, files, _read_adn, size)
    pairs = path / split if (path / split / "clean").is_dir() else path
    if (pairs / "clean").is_dir() and (pairs / "metal").is_dir():
        if split == "train" and pairs == path:
            raise ValueError(
                f"path {path} does not say which pairs are for training; move them to train/clean "
                "and train/metal, the others to test/"
            )
        clean = sorted(f for f in (pairs / "clean").iterdir() if f.suffix in (".npy", ".png"))
        files = [(pairs / "metal" / file.name, file) for file in clean]
        if missing := [file for file, _ in files if not file.is_file()]:
            raise ValueError(f"{missing[0]} is missing; metal/ and clean/ hold equal names")
        if files:
            return SlicePairs(path, files, _read_window, size)
    raise ValueError(
        f"path {path} holds no slices: neither hu.npy, *.nii(.gz), {split}/CASE/SLICE/gt.mat, nor "
        "clean/ and metal/ with .npy or .png"
    )


def _is_volume(file: Path) -> bool:
    """Tell a CT volume from the labels that often lie beside it, such as nnU-Net's labelsTr."""
    labels = any(part.lower().startswith(("label", "mask", "seg")) for part in file.parts)
    return file.name.endswith((".nii", ".nii.gz")) and not labels


def _number(file: Path) -> tuple[int, str]:
    return (int(file.stem) if file.stem.isdigit() else -1, file.stem)


def _open_hounsfield(path: Path, split: str, size: int | None) -> HounsfieldSlices:
    import numpy as np

    check_regular(path / "meta.npz", "hu.npy and meta.npz together")
    with reading(path / "hu.npy", "slices", UNPACK):
        slices = np.load(path / "hu.npy", mmap_mode="r", allow_pickle=False)
    with reading(path / "meta.npz", "facts on slices", UNPACK):
        meta = read_npz(path / "meta.npz", ("split", "pixel_mm", "mm_per_px"))
    if slices.ndim != 3 or not {"pixel_mm", "mm_per_px"} & meta.keys():
        raise ValueError(
            f"path {path} holds hu.npy {list(slices.shape)} and meta.npz with {sorted(meta)}; it "
            "must be [N, S, S], and pixel_mm or mm_per_px [N]"
        )
    for name, facts in meta.items():
        if facts.shape != (len(slices),):
            raise ValueError(
                f"{shown(path / 'meta.npz')} has {name} {list(facts.shape)} for {len(slices)} "
                "slices; write one for each"
            )
    millimetres = meta.get("pixel_mm")
    if millimetres is None:
        millimetres = meta["mm_per_px"] * (512 / slices.shape[-1])
    chosen = _of_split(path, meta.get("split"), split, len(slices))

    def load(index: int) -> Tensor:
        plane = torch.from_numpy(slices[chosen[index]].astype(np.float32))
        return _hounsfield(plane, f"{shown(path / 'hu.npy')}, slice {chosen[index]},")

    return HounsfieldSlices(load, [float(millimetres[n]) / 10 for n in chosen], size)


def _of_split(path: Path, stored: Any, split: str, total: int) -> list[int]:
    """Return the numbers of a split's slices; without a stored split all test."""
    if stored is None and split == "train":
        raise ValueError(
            f"path {path} does not say which slices are for training; write split [{total}] into "
            "meta.npz, train or test for each"
        )
    chosen = [n for n in range(total) if stored is None or stored[n] == split]
    if not chosen:
        raise ValueError(f"path {path} holds no slice for split {split}")
    return chosen


def _open_volumes(files: Sequence[Path], split: str, size: int | None) -> HounsfieldSlices:
    """Return all axial slices between a fifth and four fifths of each volume's height."""
    import numpy as np

    try:
        import nibabel
    except ImportError:
        install = 'pip install "semsim-wireless[vision]"'
        message = f"NIfTI volumes need nibabel, which is missing: {install}"
        raise ImportError(message) from None
    # every fifth tests; of fewer than five the last
    last = min(len(files), 5) - 1
    chosen = [f for n, f in enumerate(files) if (n % 5 == last) == (split == "test")]
    if not chosen:
        raise ValueError("the one volume there tests; train on others than the one tested")
    places, sides = [], []
    for file in chosen:
        with reading(file, "NIfTI", UNPACK):
            volume: Any = nibabel.load(file)
        height = _check_volume(file, tuple(volume.shape))
        inner = range(height // 5, max(height - height // 5, height // 5 + 1))
        places += [(volume, z) for z in inner]
        sides += [float(volume.header.get_zooms()[0]) / 10] * len(inner)

    def load(index: int) -> Tensor:
        volume, z = places[index]
        name = volume.get_filename()
        with reading(name, "NIfTI", UNPACK):
            pixels = np.asarray(volume.dataobj[:, :, z], dtype=np.float32)
        plane = torch.from_numpy(pixels.T.copy())
        # the whole-field subset of STS-3D-Tooth is stored in [0, 1]
        if plane.min() >= 0 and plane.max() <= 1:
            plane = plane * 4000 - 1000
        return _hounsfield(plane, f"{shown(name)}, slice {z},")

    return HounsfieldSlices(load, sides, size)


def _check_volume(file: Path, shape: tuple[int, ...]) -> int:
    """Return how many slices a volume of this shape has."""
    if len(shape) != 3 or not all(shape):
        raise ValueError(f"{shown(file)} is {list(shape)}; a volume is [X, Y, Z]")
    if shape[2] > MOST_SLICES or shape[0] * shape[1] > MOST_PIXELS:
        raise ValueError(
            f"{shown(file)} says it is {list(shape)}; a volume has at most {MOST_SLICES:,} slices "
            f"of {MOST_PIXELS:,} pixels. Its header is damaged, or cut it into parts"
        )
    return shape[2]


def _hounsfield(plane: Tensor, what: str) -> Tensor:
    """Return a slice if it can be one in HU."""
    if not plane.isfinite().all():
        raise ValueError(f"{what} holds NaN or infinity; write -1000 (air) where nothing is known")
    if plane.min() >= 0 and 0 < plane.max() <= 1:
        raise ValueError(f"{what} lies in [0, 1], not in HU; write x * (white - black) + black")
    return plane


def _read_adn(file: Path) -> Tensor:
    """Read a slice of the DeepLesion/ADN tree; the truth is raw CT, the others are in cm⁻¹."""
    import numpy as np
    from scipy.io import loadmat

    _check_header(file)
    with reading(file, "a MATLAB 5 array 'image'", UNPACK):
        image = loadmat(file, variable_names=["image"])["image"].astype(np.float32)
    if not np.isfinite(image).all():
        raise ValueError(f"{shown(file)} holds NaN or infinity; {UNPACK}")
    if file.stem == "gt":
        return to_mu(torch.from_numpy(image.T.copy()) - 32768) / WINDOW_MU
    return torch.from_numpy(image) / WINDOW_MU


def _read_window(file: Path) -> Tensor:
    """Read a grey slice in [0, 1], or PNG of 8 or 16 bits."""
    import numpy as np

    if file.suffix == ".png":
        return torch.from_numpy(read_grey(file))
    _check_header(file)
    with reading(file, "a slice", "write it with numpy.save"):
        slice_ = torch.from_numpy(np.load(file, allow_pickle=False).astype(np.float32))
    check_range(slice_, f"the pixels of {shown(file)}")
    return slice_


def _check_header(file: Path) -> None:
    """Look at the header of one slice; ValueError where it cannot be one."""
    import numpy as np
    from scipy.io import whosmat

    check_regular(file, "a slice")
    if file.suffix == ".png":
        look(file)
        return
    what = "a MATLAB 5 array 'image'" if file.suffix == ".mat" else "an array [H, W]"
    with reading(file, what, "write it again"):
        if file.suffix == ".mat":
            shape = {name: shape for name, shape, _ in whosmat(file)}["image"]
        else:
            shape = np.load(file, mmap_mode="r", allow_pickle=False).shape
        if len(shape) != 2 or not 0 < shape[0] * shape[1] <= MOST_PIXELS:
            raise ValueError(f"it is {list(shape)}, and a slice has at most {MOST_PIXELS:,} pixels")
