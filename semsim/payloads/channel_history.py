"""Channels as data: an item is what a receiver saw of one channel while time went by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from channels.base import Channel
from channels.snapshots import snapshots
from semsim.payloads.images import check_counts
from semsim.payloads.kept import Kept
from semsim.seeds import stream

KEEP_BYTES = 1 << 30  #: of items kept in memory; what comes later is drawn each time


class ChannelHistory(Dataset[tuple[Tensor, Tensor]]):
    """Sequences of snapshots of a channel, to be reported, compressed or predicted.

    An item is H as float32 [M, 2, S, F], real and imaginary part at each of M moments, with mean
    power 1 over items; S counts pairs of antennas and F the subcarriers of an OFDM symbol, as in
    :func:`channels.snapshots.snapshots`. The target is the source.

    Args:
        channel: one that moves. It is what the items tell of, not what they are sent over.
        count: number of items.
        moments: M.
        interval_s: time from one snapshot to the next, in s.
        seed: decides the items, together with the index.
    """

    name = "channel_history"

    def __init__(
        self,
        channel: Channel,
        count: int = 1000,
        *,
        moments: int = 16,
        interval_s: float = 1e-3,
        seed: int = 0,
    ) -> None:
        check_counts(count=count, moments=moments)
        self.channel, self.count, self.seed = channel, count, seed
        self.moments, self.interval_s = moments, interval_s
        self._kept = Kept(KEEP_BYTES)
        self[0]  # says now if the channel stands still

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -self.count <= index < self.count:
            raise IndexError(f"channel_history has {self.count} items, asked for number {index}")
        number = index % self.count
        (item,) = self._kept.get(number, lambda: (self._drawn(number),))
        return item, item

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Return many items at once."""
        return [self[i] for i in indices]

    def _drawn(self, index: int) -> Tensor:
        generator = stream(self.seed, "channel_history", index)
        with torch.no_grad():
            (h,) = snapshots(
                self.channel, 1, generator, moments=self.moments, interval_s=self.interval_s
            )
        return torch.stack([h.real, h.imag], dim=1)  # [M, 2, S, F]
