"""Items of a payload in batches: consecutive items of one shape, of every user."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semsim.payloads.items import check_finite, pair, stacked


@dataclass(frozen=True)
class Batch:
    """The items of one user: sources and targets, which they are, and what metrics keep of them."""

    source: Tensor
    target: Tensor
    which: Any
    kept: dict[str, Tensor] = field(default_factory=dict)


class Batches:
    """A payload of one or more users, cut into batches.

    The plan depends on the payload, ``max_items`` and ``batch_size`` alone.

    Args:
        payload: items (source, target) of the first user.
        others: payloads of the users from the second on; theirs is the first one's, a few items
            further on, where there are none.
        users: how many.
        max_items: how many items; beyond the payload's size they come again.
        batch_size: items at once at most.
        device: where they go.
    """

    def __init__(
        self,
        payload: Any,
        others: Sequence[Any] = (),
        *,
        users: int = 1,
        max_items: int,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.payload, self.users, self.device = payload, users, device
        self.max_items, self.batch_size = max_items, batch_size
        self._others = [(other, 0) for other in others]
        self._others = self._others or [(payload, user) for user in range(1, users)]

    def plan(self) -> Iterator[tuple[int, list[int], list[Any]]]:
        """Yield (batch index, numbers, items) of the first user."""
        index = 0
        for start in range(0, self.max_items, self.batch_size):
            stop = min(start + self.batch_size, self.max_items)
            groups: dict[tuple[int, ...], dict[int, Any]] = {}
            numbers = range(start, stop)
            for number, item in zip(numbers, self.items(numbers), strict=True):
                groups.setdefault(tuple(item[0].shape), {})[number] = item
            for group in groups.values():
                yield index, list(group), list(group.values())
                index += 1

    def numbers(self) -> Iterator[tuple[int, list[int]]]:
        """Yield (batch index, numbers) of the same plan.

        Nothing is loaded where the payload says by ``item_shape`` that all items have one shape.
        """
        if getattr(self.payload, "item_shape", None) is None:
            yield from ((index, numbers) for index, numbers, _ in self.plan())
            return
        for index, start in enumerate(range(0, self.max_items, self.batch_size)):
            yield index, list(range(start, min(start + self.batch_size, self.max_items)))

    def items(self, numbers: Sequence[int]) -> list[Any]:
        """Return the first user's items of these numbers."""
        return _pairs(self.payload, [number % len(self.payload) for number in numbers])

    def of_users(self, numbers: list[int], items: list[Any], *, which: bool = False) -> list[Batch]:
        """Return a batch of each user.

        Args:
            numbers: of the first user's items.
            items: these.
            which: also note numbers and checksums.
        """
        return [self._batch(numbers, own, which) for own in (items, *self._of_others(numbers))]

    def _batch(self, numbers: list[int], items: list[Any], noted: bool) -> Batch:
        source, target = _collate(items, [n % len(self.payload) for n in numbers], self.device)
        which = noted and np.array([numbers, [_checksum(item[0]) for item in items]])
        return Batch(source, target, which)

    def _of_others(self, numbers: list[int]) -> Iterator[list[Any]]:
        """Yield the items of the users from the second on: of their own payloads, or further on."""
        for user, (payload, shift) in enumerate(self._others, start=2):
            pairs = _pairs(payload, [(n + shift) % len(payload) for n in numbers])
            shapes = {tuple(source.shape) for source, _ in pairs}
            if len(shapes) > 1:
                first, second, *_ = (list(shape) for shape in sorted(shapes))
                raise ValueError(
                    f"users send at the same time what has one shape each, but items of user "
                    f"{user} have {first} and {second}; write crop in its payload"
                )
            yield pairs


def _pairs(payload: Any, indices: list[int]) -> list[Any]:
    """Return source and target of some items."""
    many = hasattr(payload, "__getitems__")
    items = payload.__getitems__(indices) if many else [payload[i] for i in indices]
    return [pair(item, index) for item, index in zip(items, indices, strict=True)]


def _collate(items: list[Any], numbers: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Stack (source, target) pairs; a target that is the source is stacked once."""
    source = torch.stack([item[0] for item in items])
    check_finite(source, numbers)
    source = source.to(device)
    targets = [item[1] for item in items]
    if all(target is item[0] for target, item in zip(targets, items, strict=True)):
        return source, source
    return source, stacked(targets, numbers).to(device)


def _checksum(source: Tensor) -> int:
    """Return the CRC-32 of an item's source."""
    return zlib.crc32(source.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
