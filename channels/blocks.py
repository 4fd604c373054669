"""Blocks of channel uses with nearly one gain: what is measured or reported once for each."""

from __future__ import annotations

import math
from collections.abc import Callable
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
    return h[..., state.middles.unique_consecutive().to(h.device)]


def steady_uses(
    correlation: Callable[[Tensor, Tensor], Tensor], uses: int, *, step: int = 1
) -> int:
    """Return over how many uses a gain stays nearly the same: correlated by 0.9, first to last.

    All uses, or a power of two of steps, which fits other blocks; one step where it is not steady.

    Args:
        correlation: as in :class:`channels.base.ChannelState`.
        uses: N.
        step: uses that have one gain, such as those of an OFDM symbol.
    """
    later = torch.arange(0, uses + step, step)
    alike = correlation(later, torch.zeros_like(later)).real
    steps = max(int((alike >= 0.9 * alike[0]).long().cumprod(0).sum()) - 1, 1)
    return uses if steps * step >= uses else step * 2 ** (steps.bit_length() - 1)
