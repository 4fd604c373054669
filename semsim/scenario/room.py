"""Whether a batch of large images fits into memory, said before it is sent.

    a crop of 256 x 256 ─► link, task, metrics ─► most bytes alive at once ─► per pixel ─► the batch

Networks take hundreds of bytes per pixel, so one photo of 48 megapixels may need 20 GB. What a link
takes is measured on one and on two small crops; the difference is what a pixel costs. Attention
over whole images, whose cost grows faster than they do, is beyond this.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from semsim.evaluation import Evaluation, Stop
from semsim.files.incoming import free_bytes
from semsim.mistakes import SpecError
from semsim.payloads.items import pair
from semsim.tasks.base import Task
from semsim.types import AnyLink

LARGE = 1 << 22  #: pixels of a batch that any machine has room for; nothing is measured below
WHOLE = 1 << 20  #: pixels of an item that ``check`` sends whole; of a larger one its centre
SIDE = 256  #: of the crops that are measured


class _Live(TorchDispatchMode):
    """Count the bytes of all tensors made within that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the most bytes that tensors made by ``work`` take at once."""
    with _Live() as live:
        work()
    return live.most


class Central(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """A payload of the centres of another's images; in all else it is that payload.

    Args:
        payload: items (source, target).
        pixels: images of more than so many are cut to a square of them.
        count: give the first item so often instead of all.
    """

    def __init__(self, payload: Any, pixels: int, count: int | None = None) -> None:
        self.payload, self.side, self.count = payload, int(pixels**0.5), count

    def __getattr__(self, name: str) -> Any:
        if "payload" not in self.__dict__:  # while it is copied
            raise AttributeError(name)
        return getattr(self.payload, name)

    def __len__(self) -> int:
        return self.count or len(self.payload)

    def __getitem__(self, index: int) -> Any:
        source, target = self.payload[0 if self.count else index]
        cut = self._centre(source)
        if target is source:
            return cut, cut
        same = isinstance(target, Tensor) and target.shape[-2:] == source.shape[-2:]
        return cut, self._centre(target) if same else target

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return many items."""
        return [self[i] for i in indices]

    def _centre(self, image: Tensor) -> Tensor:
        if image.dim() < 2 or image.shape[-1] * image.shape[-2] <= self.side**2:
            return image
        top, left = (max(n - self.side, 0) // 2 for n in image.shape[-2:])
        cut = image[..., top : top + self.side, left : left + self.side]
        return cut.clone()  # a view would keep the whole image alive, and count as it


def bytes_per_pixel(
    link: AnyLink, payload: Any, task: Task, metrics: Sequence[Any], snr_db: float
) -> float:
    """Return what one more pixel in a batch costs, in bytes, from one and from two crops.

    Beside tensors a link may need memory that torch does not see, as its ``bytes_per_pixel`` says.
    """
    peaks, pixels = [], 0
    for count in (1, 1, 2):  # the first also pays for what is kept
        crops = Central(payload, SIDE**2, count)
        pixels = crops[0][0].shape[-1] * crops[0][0].shape[-2]
        evaluation = Evaluation(
            link, crops, snr_db=[snr_db], metrics=metrics, task=task,
            stop=Stop(1, count), batch_size=count,
        )  # fmt: skip
        peaks.append(peak_bytes(evaluation.run))
    return (peaks[2] - peaks[1]) / pixels + link.bytes_per_pixel


def check_room(per_pixel: float, size: tuple[int, int], items: int, device: torch.device) -> None:
    """Raise SpecError where a batch of images takes more memory than is free.

    Args:
        per_pixel: bytes, from :func:`bytes_per_pixel`.
        size: width and height of the largest image.
        items: images in a batch.
        device: where they are sent.
    """
    free = free_bytes()
    if device.type == "cuda":  # what torch holds and does not use is free as well
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + held
    needed = per_pixel * size[0] * size[1] * items
    if needed > free:
        least = "" if items == 1 else f"batch_size: {int(free / needed * items) or 1}, or "
        raise SpecError(
            "payload",
            f"{items} at once of images of {size[0]}x{size[1]} pixels take about "
            f"{needed / 1e9:.1f} GB in this link ({per_pixel:.0f} bytes per pixel), and "
            f"{free / 1e9:.1f} GB are free; write {least}crop or resize in the payload",
        )


def checkable(
    built: Any, snr_db: float, items: int, largest: tuple[int, int] | None = None
) -> tuple[Any, float]:
    """Return the payload that a check sends, and how many times larger the first item really is.

    Images of more than a megapixel are cut to their centre, once there is room for whole ones. A
    network for one size only is sent the whole, and what it takes is not known before.

    Args:
        built: the live parts of a link.
        snr_db: where it is tried.
        items: images in a batch of the run.
        largest: width and height of the payload's largest image, where it knows it without
            reading all; else those of the first.

    Raises:
        SpecError: a batch of the largest images takes more memory than is free.
    """
    source = pair(built.payload[0], 0)[0]
    if source.dim() != 3:
        return built.payload, 1.0
    size, cut = largest or (source.shape[-1], source.shape[-2]), is_large(built.payload)
    if size[0] * size[1] * items <= LARGE and not cut:
        return built.payload, 1.0
    try:
        each = bytes_per_pixel(built.link, built.payload, built.task, built.metrics, snr_db)
    except Exception:  # a network for one size, or a mistake: the whole item will tell
        return built.payload, 1.0
    check_room(each, size, items, built.device)
    if not cut:
        return built.payload, 1.0
    central = Central(built.payload, WHOLE)
    return central, source.numel() / central[0][0].numel()


def is_large(payload: Any) -> bool:
    """Tell whether the first item is an image of which a check sends the centre alone."""
    source = payload[0][0]
    return source.dim() == 3 and source.shape[-1] * source.shape[-2] > WHOLE
