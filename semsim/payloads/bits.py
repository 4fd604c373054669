"""Random bits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from semsim.payloads.images import check_counts
from semsim.seeds import stream


class Bits(Dataset[tuple[Tensor, Tensor]]):
    """Independent fair bits, as float32 zeros and ones; the target is the source.

    Args:
        count: number of items.
        length: bits per item, K.
        seed: decides the bits, together with the item's index.
    """

    name = "bits"

    def __init__(self, count: int = 1000, length: int = 1024, *, seed: int = 0) -> None:
        check_counts(count=count, length=length)
        self.count, self.length, self.seed = count, length, seed
        self.item_shape = (length,)  # of every source, so that nobody need look

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -self.count <= index < self.count:
            raise IndexError(f"bits has {self.count} items, asked for number {index}")
        generator = stream(self.seed, "bits", index % self.count)
        bits = torch.randint(2, (self.length,), generator=generator, dtype=torch.uint8).float()
        return bits, bits

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Return many items at once."""
        return [self[i] for i in indices]
