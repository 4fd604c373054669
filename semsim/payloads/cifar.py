"""CIFAR-10 in the layout of its official Python archive.

Source: Krizhevsky, Learning multiple layers of features from tiny images (2009),
https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from semsim.mistakes import looked_in
from semsim.payloads.images import StackedImages, window
from semsim.payloads.pickled import read_pickle

FILES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
VALUES = 3 * 32 * 32


class CIFAR10(StackedImages):
    """32x32 colour images in ten classes; the target is the class.

    Args:
        path: the folder ``cifar-10-batches-py``, or the one that holds it, unpacked from
            ``cifar-10-python.tar.gz``.
        split: the 50,000 training or the 10,000 test images.
        start: first image to take; negative counts from the end.
        count: how many to take; None takes all that follow.
    """

    def __init__(
        self,
        path: str,
        *,
        split: Literal["train", "test"] = "test",
        start: int = 0,
        count: int | None = None,
    ) -> None:
        if split not in FILES:
            raise ValueError(f"split is train or test, got {split!r}")
        folder = _folder(Path(path))
        batches = [_read_batch(folder / name) for name in FILES[split]]
        images = torch.cat([images for images, _ in batches])
        labels = [label for _, of_batch in batches for label in of_batch]
        chosen = window(len(images), start, count, f"{path} ({split})")
        part = slice(chosen.start, chosen.stop)
        super().__init__(f"cifar10-{split}", images[part], labels[part])
        self.classes = _class_names(folder / "batches.meta")


def _folder(path: Path) -> Path:
    for folder in (path, path / "cifar-10-batches-py"):
        if (folder / "test_batch").is_file() or (folder / "data_batch_1").is_file():
            return folder
    raise ValueError(
        f"path {path} holds no CIFAR-10 batches{looked_in(path)}; unpack cifar-10-python.tar.gz "
        "and give the folder cifar-10-batches-py"
    )


def _read_batch(path: Path) -> tuple[torch.Tensor, list[int]]:
    batch = read_pickle(path)
    data = _entry(batch, "data", path)
    labels = _entry(batch, "labels", path)
    if not isinstance(labels, list):
        raise ValueError(f"{path}: labels must be a list, got {type(labels).__name__}")
    shape = list(getattr(data, "shape", []))
    if str(getattr(data, "dtype", "")) != "uint8" or shape != [len(labels), VALUES]:
        raise ValueError(
            f"{path}: data must be uint8 [N, {VALUES}] with N labels, "
            f"got {type(data).__name__} {shape} and {len(labels)} labels"
        )
    if not all(isinstance(label, int) and 0 <= label < 10 for label in labels):
        raise ValueError(f"{path}: labels must be integers 0 to 9")
    return torch.from_numpy(data.reshape(-1, 3, 32, 32)), labels


def _class_names(path: Path) -> list[str]:
    if not path.is_file():
        return []
    names = _entry(read_pickle(path), "label_names", path)
    if not isinstance(names, list) or not all(isinstance(n, str | bytes) for n in names):
        raise ValueError(f"{path}: label_names must be a list of names")
    return [name.decode(errors="replace") if isinstance(name, bytes) else name for name in names]


def _entry(batch: Any, key: str, path: Path) -> Any:
    """Return an entry under its key as Python 2 (bytes) or Python 3 (str) wrote it."""
    if not isinstance(batch, dict) or (key not in batch and key.encode() not in batch):
        raise ValueError(f"{path} has no entry {key!r}; is it a batch of CIFAR-10?")
    return batch[key] if key in batch else batch[key.encode()]
