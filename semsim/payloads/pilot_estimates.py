"""What a receiver makes of its pilots, beside the truth: what a better estimator learns from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from channels.base import Channel
from channels.checks import check_count, check_span
from channels.csi import CSISource
from channels.units import snr_db_to_n0
from semsim.payloads.channels import parts
from semsim.payloads.images import check_counts
from semsim.payloads.kept import InBlocks
from semsim.seeds import stream

BLOCK = 16  #: realisations drawn together; part of what an item is


class PilotEstimates(InBlocks, Dataset[tuple[Tensor, Tensor]]):
    """Channels over an OFDM grid as a receiver believes them to be, with the true ones as target.

    Source and target are float32 [T, 2, S, F]: OFDM symbols, real and imaginary part, pairs of
    antennas, subcarriers.

    Args:
        channel: over an OFDM grid, such as tdl, cdl, umi or uma.
        csi: how the receiver estimates, such as dmrs.
        count: number of items.
        symbols: T, OFDM symbols of an item, as many as the link's items have; a slot has 14.
        snr_db: lowest and highest SNR, between which each item has its own.
        seed: decides the items, together with the index.
    """

    name = "pilot_estimates"

    def __init__(
        self,
        channel: Channel,
        csi: CSISource,
        count: int = 1000,
        *,
        symbols: int = 14,
        snr_db: tuple[float, float] = (0.0, 20.0),
        seed: int = 0,
    ) -> None:
        check_counts(count=count)
        check_count("symbols", symbols, "a slot has 14")
        low, high = snr_db
        if low > high:
            raise ValueError(f"snr_db goes from low to high, got {low} to {high}; swap them")
        check_span("snr_db", snr_db)
        self.channel, self.csi, self.count, self.seed = channel, csi, count, seed
        self.symbols, self.snr_db = symbols, (low, high)
        state = channel.draw(1, 1, stream(seed, "size"))
        if state.grid is None:
            raise ValueError(
                f"channel {type(channel).__name__} has no OFDM grid; use tdl, cdl, umi or uma"
            )
        self.subcarriers = state.grid.subcarriers

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -self.count <= index < self.count:
            raise IndexError(f"{self.name} has {self.count} items, asked for number {index}")
        number, place = divmod(index % self.count, BLOCK)
        believed, truth = self._block(number)
        return believed[place], truth[place]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Return many items at once."""
        return [self[i] for i in indices]

    def _drawn(self, number: int) -> tuple[Tensor, Tensor]:
        generator = stream(self.seed, self.name, number)
        low, high = self.snr_db
        with torch.no_grad():
            state = self.channel.draw(BLOCK, self.symbols * self.subcarriers, generator)
            n0 = snr_db_to_n0(low + (high - low) * torch.rand(BLOCK, generator=generator))
            believed = self.csi(state, n0, generator).h
        if believed is None:
            raise ValueError(f"csi {type(self.csi).__name__} estimates no channel; use dmrs")
        return tuple(parts(on_grid(h, self.subcarriers)) for h in (believed, state.h))  # type: ignore[return-value]


def on_grid(h: Tensor, subcarriers: int) -> Tensor:
    """Return gains of channel uses [B, R, T, N] as [B, OFDM symbols, R T, F], full symbols."""
    return h.unflatten(-1, (-1, subcarriers)).flatten(1, 2).movedim(2, 1)


def off_grid(h: Tensor, num_rx: int) -> Tensor:
    """Return [B, R, T, N] of what :func:`on_grid` made of it."""
    return h.movedim(1, 2).unflatten(1, (num_rx, -1)).flatten(-2)
