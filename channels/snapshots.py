"""A channel as a sequence: what a receiver sees of one realisation while time goes by."""

from __future__ import annotations

import torch
from torch import Tensor

from channels.base import Channel
from channels.checks import check_count, check_positive
from channels.streams import fork


def snapshots(
    channel: Channel,
    batch: int,
    generator: torch.Generator,
    *,
    moments: int,
    interval_s: float,
    uses: int | None = None,
) -> Tensor:
    """Return realisations of a channel as it changes, H [B, M, S, F], complex64.

    Snapshot m of an item is h at m intervals from now. S = R T counts pairs of antennas, pair
    r T + t from transmit antenna t to receive antenna r; F counts channel uses within a snapshot,
    the subcarriers of an OFDM symbol.

    Args:
        channel: one that moves, as by its ``speed_mps``.
        batch: realisations B.
        generator: decides them; on its device.
        moments: M.
        interval_s: time from one snapshot to the next, in s.
        uses: F; those of an OFDM symbol where None, or 1 where there is no grid.
    """
    check_count("moments", moments, "a sequence of 16 snapshots has moments: 16")
    check_positive("interval_s", interval_s, "every half millisecond is 5e-4")
    if uses is None:
        uses = channel.draw(1, 1, fork(generator, "size")).symbol_uses
    state = channel.draw(batch, uses, generator)
    if not state.moves:
        raise ValueError(
            f"snapshots of this {type(channel).__name__} are all the same, for it stands still; "
            "set its speed_mps, or that of a stage, above 0"
        )
    times_s = interval_s * torch.arange(moments, dtype=torch.float64)
    h = state.gains(times_s).movedim(3, 1).flatten(2, 3)
    return h.expand(-1, -1, -1, uses)
