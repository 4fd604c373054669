"""Several channels in a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from channels.awgn import add_noise
from channels.base import Channel, ChannelState, acts_on_samples
from channels.checks import check_generator
from channels.gain import common_coherence
from channels.grid import ResourceGrid
from channels.ofdm import GridChannel
from channels.signal import OFDMSignal
from channels.streams import forks


class Cascade(nn.Module):
    """Send through one stage after another; noise is added once, at the receiver.

        x ──► stage 1 ──► / sqrt(R1) ──► stage 2 ──► ... ──► stage K ──► + n ──► y

    Between stages the total power is brought back to 1, so E|h[r, t]|^2 = 1 holds end to end and
    ``snr_db`` keeps its meaning. ``state.h`` is the product of the stages' gains, so that perfect
    CSI sees the whole; a non-linear stage enters with the gain it states. For packets that are
    lost without noise, put the cascade inside :class:`channels.erasure.Erasure`.

    Args:
        stages: channels in order of passage; each has as many transmit antennas as the one before
            has receive antennas.
    """

    only_gain = False

    def __init__(self, stages: list[Channel]) -> None:
        super().__init__()
        if not stages:
            raise ValueError("a cascade has one stage or more, got none; for no channel use AWGN")
        for place, (before, after) in enumerate(pairwise(stages), start=1):
            if before.num_rx != after.num_tx:
                raise ValueError(
                    f"stage {place} of a cascade, {type(before).__name__}, has {before.num_rx} "
                    f"receive antennas, but the next, {type(after).__name__}, has {after.num_tx} "
                    "transmit antennas; make the two equal"
                )
        self.stages = nn.ModuleList(cast(list[nn.Module], stages))
        _check_domain(self.stages)
        self.num_tx = stages[0].num_tx
        self.num_rx = stages[-1].num_rx

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        """Draw every stage; h is their product, [B, R, T, 1] or [B, R, T, N]."""
        stages = cast(list[Channel], list(self.stages))
        own = _generators(generator, len(stages))
        states = tuple(
            stage.draw(batch, uses, each) for stage, each in zip(stages, own, strict=True)
        )
        h, covariance = _joined(states)
        return ChannelState(
            h=h,
            coherence=common_coherence(uses, *(state.coherence for state in states)),
            interference=sum(state.interference for state in states),
            stages=states,
            grid=known_grid(states),
            correlation=joint_correlation(states),
            covariance=covariance,
            join=_joined,
            waveform=next((state.waveform for state in states if state.waveform), None),
        )

    def forward(
        self, x: Tensor, state: ChannelState, n0: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Send x [B, T, N], receive y [B, R, N]."""
        stages = cast(list[Channel], list(self.stages))
        check_generator(x, generator)
        first, *others = _generators(generator, len(stages))
        y = stages[0](x, state.stages[0], None, first)
        for stage, of_stage, own in zip(stages[1:], state.stages[1:], others, strict=True):
            y = stage(y / math.sqrt(stage.num_tx), of_stage, None, own)
        return add_noise(y, n0, generator)


def joint_correlation(
    states: tuple[ChannelState, ...],
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return the correlation of the stages' product, each of which moves by itself."""
    moving = [state.correlation for state in states if state.correlation is not None]
    if not moving:
        return None
    return lambda use, other: math.prod(
        (correlation(use, other) for correlation in moving), start=torch.ones(())
    )


def known_grid(states: tuple[ChannelState, ...]) -> ResourceGrid | None:
    """Return the grid of the one stage that fades, where all others only pass antennas on."""
    found = [state.grid for state in states if state.grid is not None]
    if len(found) != 1 or not all(_passes(state) for state in states if state.grid is None):
        return None
    return found[0]


def _passes(state: ChannelState) -> bool:
    antennas = state.h.shape[2]
    straight = math.sqrt(antennas) * torch.eye(antennas, dtype=state.h.dtype, device=state.h.device)
    return state.h.shape[1::2] == (antennas, 1) and bool((state.h[..., 0] == straight).all())


def _check_domain(stages: nn.Module) -> None:
    """Refuse impairments beside OFDM: they act on the signal in time, not on its subcarriers."""
    parts = [*_within(stages)]
    hardware = [part for part in parts if acts_on_samples(cast(Channel, part))]
    if hardware and any(map(_is_ofdm, parts)):
        raise ValueError(
            f"stages of a cascade hold {type(hardware[0]).__name__} beside an OFDM channel, where "
            "it acts on the signal in time and not on its subcarriers; write kind: waveform "
            "instead of cascade, with these two as its stages"
        )


def _within(stage: nn.Module) -> Iterator[nn.Module]:
    """Return a stage with all channels within it; those of a waveform act as they should."""
    yield stage
    if not _is_ofdm(stage):
        for part in stage.children():
            yield from _within(part)


def _is_ofdm(stage: nn.Module) -> bool:
    return isinstance(stage, GridChannel) or isinstance(getattr(stage, "signal", None), OFDMSignal)


def _generators(generator: torch.Generator, stages: int) -> list[torch.Generator]:
    """Return one for each stage, so that none shifts what another draws."""
    if stages == 1:
        return [generator]
    return [*forks(generator, *(f"stage {place}" for place in range(stages)))]


def _joined(states: tuple[ChannelState, ...]) -> tuple[Tensor, Tensor | None]:
    return through(states), _covariance(states)


def through(states: tuple[ChannelState, ...]) -> Tensor:
    """Return the gain of all stages, in order of passage."""
    h = states[0].h
    for state in states[1:]:
        h = _product(state.h, h) / math.sqrt(state.h.shape[2])
    return h


def _covariance(states: tuple[ChannelState, ...]) -> Tensor | None:
    """Return what the interference of the stages is at the end, after all later stages."""
    if all(state.covariance is None for state in states):
        return None
    total = states[0].coloured()
    for state in states[1:]:
        h = state.h.to(total.dtype)
        total = _product(_product(h, total), h.conj().transpose(1, 2)) / h.shape[2]
        total = total + state.coloured()
    return total


def _product(after: Tensor, before: Tensor) -> Tensor:
    """Return h_after h_before per use, [B, R2, T1, N]; constant ones are repeated."""
    uses = max(after.shape[-1], before.shape[-1])
    after = after.expand(*after.shape[:-1], uses).movedim(-1, 1)
    before = before.expand(*before.shape[:-1], uses).movedim(-1, 1)
    return (after @ before).movedim(1, -1)
