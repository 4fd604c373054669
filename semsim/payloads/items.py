"""What a payload's items are: pairs (source, target), sources as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from semsim.ranges import check_range


def pair(item: Any, index: int) -> tuple[Tensor, Any]:
    """Return an item as (source, target); ValueError says what another kind of item should be.

    Args:
        item: what the payload gave.
        index: its number, for the message.
    """
    if not isinstance(item, tuple | list) or len(item) != 2:
        keys = f" with keys {', '.join(map(repr, item))}" if isinstance(item, dict) else ""
        count = f" of {len(item)}" if isinstance(item, tuple | list) else keys
        raise ValueError(
            f"item {index} of the payload is a {type(item).__name__}{count}; its __getitem__ must "
            "return two values, (source, target)"
        )
    source, target = item
    if not isinstance(source, Tensor) or not (source.is_floating_point() or source.is_complex()):
        kind = source.dtype if isinstance(source, Tensor) else type(source).__name__
        raise ValueError(
            f"item {index} of the payload has a source of {kind}; a source is a float32 tensor, of "
            "an image [3, H, W] in [0, 1]"
        )
    if target is None or isinstance(target, str | Mapping):
        raise ValueError(
            f"item {index} of the payload has a target of {type(target).__name__}; a target is a "
            "class, a reference tensor, or the source itself, as in return image, image"
        )
    return source, target


def stacked(targets: Sequence[Any], numbers: Sequence[int]) -> Tensor:
    """Return the targets of a batch as one tensor [B, ...].

    Args:
        targets: of the items, tensors or numbers.
        numbers: of the items, for the message.

    Raises:
        ValueError: they are not of one kind and shape.
    """
    tensors = [torch.as_tensor(target) for target in targets]
    for number, tensor in zip(numbers, tensors, strict=True):
        if tensor.shape != tensors[0].shape:
            raise ValueError(
                f"targets of one batch are of one kind and shape, but that of item {numbers[0]} of "
                f"the payload is {_kind(tensors[0])} and that of item {number} {_kind(tensor)}; "
                "give all items a class or none, and targets of one size, as crop makes them"
            )
    return torch.stack(tensors)


def _kind(target: Tensor) -> str:
    return f"a tensor {list(target.shape)}" if target.dim() else "one number, as a class is"


def check_finite(sources: Tensor, numbers: Sequence[int]) -> None:
    """Raise ValueError where a source [B, ...] holds NaN or infinity, naming the item."""
    if sources.flatten(1).sum(dim=1).isfinite().all():  # thirty times cheaper than one by one
        return
    sound = sources.isfinite().flatten(1).all(dim=1).tolist()
    if not all(sound):
        raise ValueError(
            f"item {numbers[sound.index(False)]} of the payload holds NaN or infinity; mend or "
            "leave out what it was made from"
        )


def check_image(source: Tensor) -> None:
    """Raise ValueError where a source [3, H, W] is a colour image on another scale than [0, 1]."""
    if source.dim() == 3 and len(source) == 3:
        check_range(source, "the payload's images")
