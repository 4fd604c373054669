"""Images in one NumPy file."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import torch

from semsim.payloads.images import StackedImages, window


class Arrays(StackedImages):
    """An .npz file with images x, uint8 [N, H, W, 3], and optionally classes y, integers [N].

    Args:
        path: the file, as ``numpy.savez`` writes it; pickled objects in it are refused.
        start: first image to take; negative counts from the end.
        count: how many to take; None takes all that follow.
    """

    def __init__(self, path: str, *, start: int = 0, count: int | None = None) -> None:
        import numpy as np

        if not Path(path).is_file():
            raise ValueError(f"path {path} is not a file; give an .npz file with x and maybe y")
        try:
            with np.load(path, allow_pickle=False) as file:
                held = {key: file[key] for key in ("x", "y") if key in file}
        except (ValueError, OSError, BadZipFile, AttributeError, TypeError) as error:
            raise ValueError(
                f"path {path} cannot be read as .npz ({error}); write it with numpy.savez"
            ) from None
        x = held.get("x", np.empty(0))
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] != 3 or not len(x):
            raise ValueError(
                f"path {path} holds x as {x.dtype} {list(x.shape)}; it must be uint8 [N, H, W, 3]"
            )
        y = held.get("y")
        if y is not None and (y.shape != x.shape[:1] or y.dtype.kind not in "iu"):
            raise ValueError(
                f"path {path} holds y as {y.dtype} {list(y.shape)}; it must be integers [{len(x)}]"
            )
        chosen = window(len(x), start, count, path)
        part = slice(chosen.start, chosen.stop)
        images = torch.from_numpy(x[part]).permute(0, 3, 1, 2).contiguous()
        super().__init__(Path(path).stem, images, None if y is None else y[part].tolist())
