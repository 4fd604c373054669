"""Images, or clips of them, in one NumPy file."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from semsim.files.incoming import check_regular, check_unfolds, reading, shown
from semsim.payloads.images import StackedImages, window


class Arrays(StackedImages):
    """An .npz file with images x, uint8 [N, H, W, 3], and optionally classes y, integers [N].

    Where x is [N, T, H, W, 3], an item is a clip [T, 3, H, W].

    Args:
        path: the file, as ``numpy.savez`` writes it; pickled objects in it are refused.
        start: first image to take; negative counts from the end.
        count: how many to take; None takes all that follow.
    """

    def __init__(self, path: str, *, start: int = 0, count: int | None = None) -> None:
        import numpy as np

        check_regular(Path(path), "an .npz file with x and maybe y", "path")
        with reading(path, "images in .npz", "write it with numpy.savez", "path"):
            held = read_npz(Path(path), ("x", "y"))
        if "x" not in held:
            raise ValueError(f"path {shown(path)} holds no x; write numpy.savez(path, x=images)")
        x = held["x"]
        if x.dtype != np.uint8 or x.ndim not in (4, 5) or x.shape[-1] != 3 or not x.size:
            raise ValueError(
                f"path {shown(path)} holds x as {x.dtype} {list(x.shape)}; it must be uint8 "
                "[N, H, W, 3], or [N, T, H, W, 3], of images in [0, 1] "
                "(255 * x).round().astype('uint8')"
            )
        y = held.get("y")
        if y is not None and (y.shape != x.shape[:1] or y.dtype.kind not in "iu"):
            raise ValueError(
                f"path {path} holds y as {y.dtype} {list(y.shape)}; it must be integers [{len(x)}]"
            )
        chosen = window(len(x), start, count, path)
        part = slice(chosen.start, chosen.stop)
        images = torch.from_numpy(x[part]).movedim(-1, -3).contiguous()
        super().__init__(shown(Path(path).stem), images, None if y is None else y[part].tolist())


def read_npz(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return arrays by name out of an .npz file; sizes are looked at before anything unfolds."""
    import numpy as np

    with zipfile.ZipFile(path) as archive:
        check_unfolds(path, sum(entry.file_size for entry in archive.infolist()), "the file")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in names if name in file}
