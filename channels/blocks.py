"""Blocks of channel uses with nearly one gain: what is measured or reported once for each."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from channels.base import CSI, ChannelState


def over_grid(state: ChannelState) -> bool:
    """Tell whether the channel, or a stage of it, is an OFDM grid."""
    return state.grid is not None or any(over_grid(stage) for stage in state.stages)


def varies(seen: ChannelState | CSI) -> bool:
    """Tell whether gain or interference differs among the uses of an item."""
    known = [part for part in (seen.h, seen.covariance) if part is not None]
    return any(part.shape[-1] > 1 for part in known)


def count_blocks(state: ChannelState, uses: int) -> int:
    """Return how many blocks an item of ``uses`` channel uses has."""
    if state.grid is not None:
        return state.grid.blocks(uses)[1]
    return 1 if state.h.shape[-1] == 1 else math.ceil((state.offset + uses) / state.coherence)


def block_means(state: ChannelState) -> Tensor:
    """Return the mean gain of each coherence block, [B, R, T, blocks]."""
    h, uses = state.h, state.h.shape[-1]
    if state.grid is not None:
        block, count = state.grid.blocks(uses)
        sums = h.new_zeros(*h.shape[:-1], count).index_add(-1, block.to(h.device), h)
        return sums / block.bincount().to(h.device)
    if uses == 1 or state.coherence == 1:
        return h
    if state.offset:
        head = state.coherence - state.offset
        rest = block_means(replace(state, h=h[..., head:], offset=0))
        return torch.cat([h[..., :head].mean(dim=-1, keepdim=True), rest], dim=-1)
    coherence = min(state.coherence, uses)
    whole = uses - uses % coherence
    means = h[..., :whole].unflatten(-1, (-1, coherence)).mean(dim=-1)
    if whole == uses:
        return means
    return torch.cat([means, h[..., whole:].mean(dim=-1, keepdim=True)], dim=-1)


def per_use(h: Tensor, state: ChannelState) -> Tensor:
    """Repeat [B, R, T, blocks] to the uses of ``state.h``."""
    uses = state.h.shape[-1]
    if state.grid is not None:
        return h[..., state.grid.blocks(uses)[0].to(h.device)]
    if uses == 1 or state.coherence == 1:
        return h
    return h.repeat_interleave(state.coherence, dim=-1)[..., state.offset : state.offset + uses]


def block_middles(state: ChannelState) -> Tensor:
    """Return the gain in the middle of each coherence block, [B, R, T, blocks]."""
    h, uses = state.h, state.h.shape[-1]
    if uses == 1 or state.coherence == 1:
        return h
    start = torch.arange(-state.offset, uses, state.coherence)
    start, end = start.clamp(min=0), (start + state.coherence).clamp(max=uses)
    return h[..., (start + (end - start) // 2).to(h.device)]


def middles(uses: int, coherence: int) -> Tensor:
    """Return the use in the middle of each use's block, [uses]; the last block may be short."""
    use = torch.arange(uses)
    start = use - use % coherence
    return start + torch.clamp(uses - start, max=coherence) // 2
