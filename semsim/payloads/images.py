"""What all image payloads share: 8-bit pixels in memory, float32 images in [0, 1] outside."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from PIL.Image import Image


class ImagePayload(Dataset[tuple[Tensor, Tensor | int]]):
    """Images that are deterministic by index.

    An item is ``(source, target)``: source float32 [3, H, W] in [0, 1]; target the class where the
    payload has labels, else the source itself. A subclass gives ``name``, ``__len__`` and
    ``pixels``, and ``labels`` where it has them.
    """

    name: str
    labels: Sequence[int] | None = None

    @property
    def item_shape(self) -> tuple[int, ...] | None:
        """Shape of every source, where all have one that is known without looking."""
        return None

    def __len__(self) -> int:
        raise NotImplementedError

    def pixels(self, index: int) -> Tensor:
        """Return one image, uint8 [3, H, W]; ``index`` is in range."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor | int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} images, asked for number {index}")
        return self._item(to_float(self.pixels(index % len(self))), index % len(self))

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor | int]]:
        """Return many items at once; a DataLoader calls this by itself."""
        return [self[i] for i in indices]

    def _item(self, source: Tensor, index: int) -> tuple[Tensor, Tensor | int]:
        return source, source if self.labels is None else int(self.labels[index])


class StackedImages(ImagePayload):
    """Images of one size in one tensor, so that a batch is one indexing operation.

    Args:
        name: what the rows call it.
        images: uint8 [N, 3, H, W].
        labels: class of each image, or None.
    """

    def __init__(self, name: str, images: Tensor, labels: Sequence[int] | None = None) -> None:
        self.name = name
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, index: int) -> Tensor:
        """Return one image, uint8 [3, H, W]."""
        return self.images[index]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor | int]]:
        """Return many items, converted together; the sources are views of one tensor."""
        sources = to_float(self.images[torch.as_tensor(indices)])
        return [self._item(s, i) for s, i in zip(sources.unbind(), indices, strict=True)]


def to_float(pixels: Tensor) -> Tensor:
    """Return uint8 pixels as float32 in [0, 1]; exact, 255 becomes 1."""
    return pixels.to(torch.float32).div_(255)


def to_tensor(image: Image) -> Tensor:
    """Return a Pillow image as uint8 [3, H, W]."""
    import numpy as np

    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def fit(image: Image, resize: int | None, crop: int | None, what: str) -> Image:
    """Scale the shorter side to ``resize`` pixels, then cut a central square of side ``crop``.

    Args:
        image: a Pillow image.
        resize: shorter side in pixels after scaling (Lanczos, antialiased), or None.
        crop: side of the square in pixels, or None for the whole image.
        what: the image's name, for the error message.
    """
    from PIL.Image import Resampling

    if resize is not None:
        scale = resize / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, Resampling.LANCZOS)
    if crop is None:
        return image
    check_crop(image.size, crop, what)
    left, top = (image.width - crop) // 2, (image.height - crop) // 2
    return image.crop((left, top, left + crop, top + crop))


def check_crop(size: tuple[int, int], crop: int | None, what: str) -> None:
    """Raise ValueError where a square of side ``crop`` does not fit into (width, height)."""
    if crop is not None and min(size) < crop:
        raise ValueError(
            f"crop {crop} does not fit into {what} of {size[0]}x{size[1]} pixels; "
            f"use crop: {min(size)} or less, or resize: {crop}"
        )


def check_counts(**values: float | None) -> None:
    """Raise ValueError unless each of the named values is None or at least 1."""
    for name, value in values.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is at least 1, got {value}")


def refuse_idle(part: type, why: str, **given: Any) -> None:
    """Raise ValueError where an argument without effect is not left at its default.

    Args:
        part: whose constructor has these arguments.
        why: where they have no effect, such as ``with files``.
        given: their values, by name.
    """
    known = inspect.signature(part).parameters
    for name, value in given.items():
        if value != known[name].default:
            raise ValueError(f"{name} does nothing {why}, got {value}; leave it out")


def check_members(of: Sequence[Any]) -> None:
    """Look at the files of payloads that can say what is wrong with them."""
    for payload in of:
        if hasattr(payload, "check_files"):
            payload.check_files()


def window(total: int, start: int, count: int | None, what: str) -> range:
    """Return the indices that ``start`` and ``count`` choose out of ``total``.

    Args:
        total: how many there are.
        start: the first one; negative counts from the end, so ``start=-1000`` takes the last 1,000.
        count: how many, or None for all that follow.
        what: what is chosen from, for the error message.
    """
    check_counts(count=count)
    first = start + total if start < 0 else start
    last = total if count is None else first + count
    if not 0 <= first < last <= total:
        raise ValueError(
            f"{what} has {total} images, cannot take start: {start}, count: {count}; "
            f"start lies in [-{total}, {total - 1}] and start + count within the set"
        )
    return range(first, last)
