"""OFDM as a signal in time: prefix, moving echoes, late echoes, amplifiers and oscillators."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from channels.awgn import add_noise
from channels.base import Channel, ChannelState, acts_on_samples, check_symbols
from channels.blocks import steady_uses
from channels.cascade import joint_correlation, known_grid, through
from channels.checks import check_count, check_draw, check_positive
from channels.gain import common_coherence
from channels.ofdm import GridChannel
from channels.samples import LOOKS, PathState, SampleState
from channels.signal import OFDMSignal
from channels.streams import fork
from channels.tr38901 import Impulse, Moments


class Waveform(nn.Module):
    """Send symbols as an OFDM signal in time, through stages that act on its samples.

        x ──► IFFT, prefix ──► stage 1 ──► ... ──► stage K ──► drop prefix, FFT ──► + n ──► y

    Stages are impairments (``clipping``, ``carrier_offset``, ``phase_noise``; a use of theirs is a
    sample here) and fading over paths (``tdl``, ``cdl``, ``umi``, ``uma``), whose gains change
    within an OFDM symbol. So subcarriers disturb each other while the user moves, and an echo later
    than the prefix disturbs the next OFDM symbol. ``state.h`` is the gain of each resource element
    by itself. What comes from others is ``state.interference`` as far as motion and late echoes
    make it, on average, and hidden from the receiver as far as impairments make it.

    Where hardware alone turns the gain, ``state.coherence`` counts whole OFDM symbols.

    Delays are exact to about -50 dB: fractions of a sample by Fourier transform.

    Args:
        stages: in order of passage; between them the total power is brought back to 1.
        subcarriers: F, where no stage says it.
        subcarrier_spacing_hz: their distance, likewise.

    Source: 3GPP TS 38.211, section 5.3.1, for the signal.
    """

    only_gain = False
    work = 16

    def __init__(
        self,
        stages: list[Channel],
        *,
        subcarriers: int | None = None,
        subcarrier_spacing_hz: float | None = None,
    ) -> None:
        super().__init__()
        _check_stages(stages)
        grids = [stage.grid for stage in stages if isinstance(stage, GridChannel)]
        own = _Size(subcarriers, subcarrier_spacing_hz)
        sizes = [_Size(grid.subcarriers, grid.subcarrier_spacing_hz) for grid in grids]
        self.signal = _common_signal(own, sizes)
        rate = self.signal.sample_rate_hz
        placed = [s.at_rate(rate) if hasattr(s, "at_rate") else s for s in stages]
        self.stages = nn.ModuleList(cast(list[nn.Module], placed))
        self.num_tx = stages[0].num_tx
        self.num_rx = stages[-1].num_rx

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        """Draw every stage; h [B, R, T, N], one gain per resource element."""
        check_draw(batch, uses)
        samples = self.signal.symbols(uses) * self.signal.length
        own = self._generators(generator)
        states = tuple(
            self._draw_stage(stage, batch, uses, samples, each)
            for stage, each in zip(self.stages, own, strict=True)
        )
        elements = tuple(self._per_element(state, uses) for state in states)
        return SampleState(
            h=through(elements),
            coherence=common_coherence(uses, *(state.coherence for state in elements)),
            interference=sum(state.interference for state in states),
            stages=states,
            join=partial(self._joined, uses),
            grid=known_grid(states),
            waveform=self.signal.modulate,
            signal=self.signal,
            joined=self._joined,
            correlation=joint_correlation(elements),
        )

    def _joined(self, uses: int, stages: tuple[ChannelState, ...]) -> tuple[Tensor, None]:
        return through(tuple(replace(s, h=self._element_gains(s, uses)) for s in stages)), None

    def forward(
        self, x: Tensor, state: ChannelState, n0: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Send x [B, T, N], receive y [B, R, N]."""
        check_symbols(x, self.num_tx)
        signal = self.signal.modulate(x) * math.sqrt(self.num_tx)
        for stage, of_stage in zip(self.stages, state.stages, strict=True):
            signal = signal / math.sqrt(cast(Channel, stage).num_tx)
            if isinstance(of_stage, PathState):
                signal = self._over_paths(signal, of_stage.impulse)
            else:
                signal = stage(signal, of_stage, None, generator)
        return add_noise(self.signal.demodulate(signal, x.shape[-1]), n0, generator)

    def _generators(self, generator: torch.Generator) -> list[torch.Generator]:
        """Return one for each stage; paths have the given one, whatever is beside them."""
        fading = [isinstance(stage, GridChannel) for stage in self.stages]
        first = fading.index(True) if any(fading) else 0
        return [
            generator if place == first else fork(generator, f"stage {place}")
            for place in range(len(fading))
        ]

    def _draw_stage(
        self, stage: nn.Module, batch: int, uses: int, samples: int, generator: torch.Generator
    ) -> ChannelState:
        if not isinstance(stage, GridChannel):
            return cast(Channel, stage).draw(batch, samples, generator)
        seed = generator.get_state()
        looks = self.signal.symbols(uses) * LOOKS + 1
        rate = LOOKS * self.signal.sample_rate_hz / self.signal.length
        impulse = stage.impulse(batch, Moments(looks, rate), generator)

        def replay(later_s: float) -> Impulse:
            again = torch.Generator(generator.device)
            again.set_state(seed)
            moment = torch.tensor([later_s], dtype=torch.float64)
            return stage.impulse(batch, Moments(looks, rate, moment), again)

        resources = stage.resources
        return PathState(
            h=self._gains(impulse, uses),
            coherence=min(resources.flat_subcarriers, uses),
            interference=self._lost(stage),
            grid=resources,
            signal=self.signal,
            impulse=impulse,
            element_gains=self._gains,
            replay=replay if stage.grid.speed_mps else None,
        )

    def _per_element(self, state: ChannelState, uses: int) -> ChannelState:
        """Return a stage as its resource elements have it, and over how many it is steady."""
        if _has_elements(state):
            return state
        h, correlation = self._element_gains(state, uses), state.correlation
        if correlation is None:
            return ChannelState(h, min(self.signal.subcarriers, uses))
        between = partial(self._between_elements, correlation)
        steady = steady_uses(between, uses, step=self.signal.subcarriers)
        return ChannelState(h, steady, correlation=between)

    def _element_gains(self, state: ChannelState, uses: int) -> Tensor:
        """Return the gain of each resource element; that of samples averages over the FFT."""
        if _has_elements(state):
            return state.h
        body = state.h.unflatten(-1, (-1, self.signal.length))[..., self.signal.prefix :]
        mean = body.mean(dim=-1, keepdim=True).expand(*body.shape[:-1], self.signal.subcarriers)
        return mean.flatten(-2)[..., :uses]

    def _between_elements(
        self, correlation: Callable[[Tensor, Tensor], Tensor], use: Tensor, other: Tensor
    ) -> Tensor:
        """Return the correlation of resource elements, from that of samples."""
        size, subcarriers = self.signal.fft_size, self.signal.subcarriers
        apart = torch.arange(1 - size, size)
        share = (size - apart.abs()).double() / size**2  # of all pairs, as an element is a mean
        symbols, place = (use // subcarriers - other // subcarriers).unique(return_inverse=True)
        samples = symbols[:, None] * self.signal.length + apart
        pairs = correlation(samples, torch.zeros_like(samples))
        return (pairs * share).sum(dim=1)[place]

    def _gains(self, impulse: Impulse, uses: int) -> Tensor:
        """Return h [B, R, T, N]: each path's gain, averaged while it carries its own symbol."""
        signal, gains = self.signal, impulse.gains
        sample = torch.arange(signal.fft_size, device=gains.device)
        begins = impulse.delays_s * signal.sample_rate_hz - signal.prefix
        own = (sample >= begins[..., None]).to(gains.real.dtype)  # [B, P, M]
        # the mean over samples of straight lines is a weighted sum of the looks that they join
        place = (sample + signal.prefix) * (LOOKS / signal.length)
        look = torch.arange(LOOKS + 1, device=gains.device)
        share = (1 - (place[:, None] - look).abs()).clamp(min=0).to(own.dtype)  # [M, looks]
        weight = (own @ share / signal.fft_size).to(gains.dtype)  # [B, P, looks]
        mean = torch.einsum("brtpsk,bpk->brtps", gains.unfold(-1, LOOKS + 1, LOOKS), weight)
        hertz = signal.offsets(gains.device) * signal.subcarrier_spacing_hz
        turns = -2 * math.pi * impulse.delays_s[..., None].double() * hertz  # [B, P, F]
        phases = torch.polar(torch.ones_like(turns), turns).to(gains.dtype)
        return torch.einsum("brtps,bpf->brtsf", mean, phases).flatten(-2)[..., :uses]

    def _over_paths(self, signal: Tensor, impulse: Impulse) -> Tensor:
        """Return what R antennas receive of T signals [B, T, samples] over all paths."""
        samples = signal.shape[-1]
        room = _fast_length(samples + self.signal.fft_size)
        spectrum = torch.fft.fft(signal, room)
        hertz = torch.fft.fftfreq(room, device=signal.device, dtype=torch.float64)
        delays = impulse.delays_s.double() * self.signal.sample_rate_hz
        if bool((delays == delays[:1]).all()):
            delays = delays[:1]  # a profile's paths arrive alike in all items
        received = signal.new_zeros(len(signal), impulse.gains.shape[1], samples)
        for path in range(impulse.gains.shape[3]):
            turns = ((-hertz * delays[:, path, None]) % 1).to(signal.real.dtype) * (2 * math.pi)
            turned = torch.polar(torch.ones_like(turns), turns)[:, None]
            late = torch.fft.ifft(spectrum * turned)[..., :samples]
            gains = _between(impulse.gains[:, :, :, path].to(signal.dtype), self.signal.length)
            if gains.shape[2] == 1:
                received = received + gains[:, :, 0] * late
            else:
                received = received + torch.einsum("brtn,btn->brn", gains, late)
        return received

    def _lost(self, stage: GridChannel) -> float:
        """Return the mean power that reaches an element from others, by motion and late echoes.

        While a path turns at f, the FFT keeps sinc^2(f / spacing) of its power in place. Of one
        that is late by e of M samples it keeps ((M - e) / M)^2, and the rest disturbs.
        """
        taps, signal = stage.resources.taps, self.signal
        scale = 1 / signal.subcarrier_spacing_hz
        mean_square = (taps.dopplers_hz.double() * scale).square() * taps.mean_square
        turned = (math.pi**2 / 3 * mean_square).clamp(max=1)  # of 1 - sinc^2, to second order
        late = (taps.delays_s.double() - signal.prefix_s).clamp(min=0) / scale
        kept = (1 - late.clamp(max=1)).square() * (1 - turned)
        lost = float((taps.powers.double() * (1 - kept)).sum())
        if taps.sight is not None:
            lost += taps.sight.power * _not_in_place(taps.sight.shift_hz * scale)
        return max(lost, 0.0)

    def extra_repr(self) -> str:
        """Name the signal."""
        return f"subcarriers={self.signal.subcarriers}, fft_size={self.signal.fft_size}"


@dataclass(frozen=True)
class _Size:
    subcarriers: int | None
    subcarrier_spacing_hz: float | None


def _has_elements(state: ChannelState) -> bool:
    """Tell whether a stage's gain is that of resource elements, or of all samples alike."""
    return isinstance(state, PathState) or state.h.shape[-1] == 1


def _not_in_place(turns: float) -> float:
    """Return the power that leaves a subcarrier which turns so often within an FFT."""
    return 1 - (math.sin(math.pi * turns) / (math.pi * turns)) ** 2 if turns else 0.0


def _fast_length(samples: int) -> int:
    """Return the next length at which a Fourier transform is fast: 2^n, or 3/4 of it."""
    whole = 1 << (samples - 1).bit_length()
    return 3 * whole // 4 if 3 * whole // 4 >= samples else whole


def _between(gains: Tensor, length: int) -> Tensor:
    """Return gains [..., samples] of looks [..., symbols * LOOKS + 1], straight between them."""
    symbols = (gains.shape[-1] - 1) // LOOKS
    place = torch.arange(symbols * length, device=gains.device) * (LOOKS / length)
    before = place.long()
    share = (place - before).to(gains.real.dtype)
    steps = gains.diff(dim=-1)
    return gains[..., before] + share * steps[..., before]


def _check_stages(stages: list[Channel]) -> None:
    if not stages:
        raise ValueError("stages of a waveform: one or more, got none; such as [{kind: tdl}]")
    for place, stage in enumerate(stages, start=1):
        if getattr(stage, "only_training", False):
            raise ValueError(
                f"stage {place} of a waveform is {type(stage).__name__}, which draws a channel for "
                "each batch; write one channel there"
            )
        if not isinstance(stage, GridChannel) and not acts_on_samples(stage):
            raise ValueError(
                f"stages of a waveform are hardware, which acts on samples (clipping, "
                f"carrier_offset, phase_noise), or paths (tdl, cdl, umi, uma); stage {place} is "
                f"{type(stage).__name__}; use a cascade for it"
            )
    for place, (before, after) in enumerate(pairwise(stages), start=1):
        if before.num_rx != after.num_tx:
            raise ValueError(
                f"stages of a waveform: stage {place} has {before.num_rx} receive antennas, but "
                f"the next has {after.num_tx} transmit antennas; make the two equal"
            )


def _common_signal(own: _Size, sizes: list[_Size]) -> OFDMSignal:
    """Return F and the spacing, which all stages share."""
    first = sizes[0] if sizes else _Size(48, 30e3)
    subcarriers = own.subcarriers if own.subcarriers is not None else first.subcarriers
    spacing = own.subcarrier_spacing_hz
    spacing = first.subcarrier_spacing_hz if spacing is None else spacing
    assert subcarriers is not None and spacing is not None  # for mypy: the last fallback has both
    check_count("subcarriers", subcarriers, "four resource blocks have 48")
    check_positive("subcarrier_spacing_hz", spacing, "5G has 15e3, 30e3 or 60e3")
    for size in sizes:
        if (size.subcarriers, size.subcarrier_spacing_hz) != (subcarriers, spacing):
            raise ValueError(
                "stages of a waveform share one OFDM grid, got "
                f"{size.subcarriers} subcarriers of {size.subcarrier_spacing_hz:g} Hz beside "
                f"{subcarriers} of {spacing:g} Hz"
            )
    return OFDMSignal(subcarriers, float(spacing))
