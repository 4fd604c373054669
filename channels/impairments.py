"""What oscillators and amplifiers do to a signal: carrier offset, phase noise, clipping.

With several antennas the signals pass side by side, h = sqrt(T) I: each of T antennas carries 1/T
of the power, and ``snr_db`` per receive antenna keeps its meaning. All share one oscillator.

They act on channel uses. For OFDM that is not what hardware does: there they act on the signal in
time, which ``channels.waveform`` sends through them.

At other times of a realisation (``ChannelState.during``) an oscillator stands as it does now: all
antennas share its phase, which no report of the channel depends on.

``ChannelState.coherence`` of a rotation says where pilots go: over how many uses it stays nearly
the same (correlation 0.9 from first to last), as a power of two that fits other blocks. Within a
waveform OFDM symbols take the place of uses.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from channels.awgn import add_noise
from channels.base import ChannelState, check_symbols
from channels.blocks import steady_uses
from channels.checks import check_count, check_draw, check_finite, check_positive, check_range
from channels.streams import normal_by_use
from channels.units import db_to_linear


class _Oscillator(nn.Module):
    """Rotate all antennas by one phase per use: y = sqrt(T) e^(j phase[n]) x; draws in subclass."""

    acts_on = "samples"

    def __init__(self, antennas: int, tracked: bool) -> None:
        super().__init__()
        check_count("antennas", antennas, "one antenna is antennas: 1")
        self.num_tx = self.num_rx = antennas
        self.tracked = tracked

    def _phase(self, batch: int, uses: int, generator: torch.Generator) -> Tensor:
        raise NotImplementedError

    def _correlation(self, use: Tensor, other: Tensor) -> Tensor:
        """Return E[h h*] of two uses; h of one antenna."""
        raise NotImplementedError

    @property
    def only_gain(self) -> bool:
        """Tell whether h contains all that it does."""
        return self.tracked

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        """Draw the rotation; h [B, T, T, N] contains it where it is tracked, [B, T, T, 1] else."""
        check_draw(batch, uses)
        phase = self._phase(batch, uses, generator)[:, None, None]
        rotation = ChannelState(torch.polar(torch.ones_like(phase), phase).to(torch.complex64), 1)
        through = _side_by_side(self.num_tx, generator.device).expand(batch, -1, -1, -1)
        if not self.tracked:
            return ChannelState(through, uses, stages=(rotation,))
        return ChannelState(
            h=through * rotation.h,
            coherence=steady_uses(self._correlation, uses),
            stages=(rotation,),
            correlation=self._correlation,
        )

    def forward(
        self, x: Tensor, state: ChannelState, n0: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Send x [B, T, N], receive y [B, T, N]."""
        check_symbols(x, self.num_tx)
        rotation = state.stages[0].h[:, 0].to(x.dtype)
        return add_noise(math.sqrt(self.num_tx) * rotation * x, n0, generator)


class CarrierOffset(_Oscillator):
    """Rotate the signal by 2 pi f n: the oscillators of the two ends differ by f.

    Write f either in cycles per channel use, or in Hz with the symbol rate. The rotation starts at
    phase 0 with each item.

    Args:
        cycles_per_use: f, in cycles per channel use.
        offset_hz: f, in Hz, instead.
        symbol_rate_hz: channel uses per second, with ``offset_hz``; within a waveform, which has a
            rate of its own, it may be left out.
        tracked: whether h contains the rotation, so that perfect CSI undoes it; where false, h is
            1 and the receiver suffers what synchronisation left.
        antennas: antennas side by side.
    """

    def __init__(
        self,
        cycles_per_use: float | None = None,
        *,
        offset_hz: float | None = None,
        symbol_rate_hz: float | None = None,
        tracked: bool = True,
        antennas: int = 1,
    ) -> None:
        super().__init__(antennas, tracked)
        if cycles_per_use is not None and (offset_hz is not None or symbol_rate_hz is not None):
            raise ValueError(
                f"the offset is given twice: cycles_per_use={cycles_per_use} and offset_hz="
                f"{offset_hz}, symbol_rate_hz={symbol_rate_hz}; write cycles_per_use alone"
            )
        if cycles_per_use is not None:
            check_finite("cycles_per_use", cycles_per_use, "one turn in 10000 uses is 1e-4")
        elif offset_hz is None:
            raise ValueError(
                "a carrier offset is cycles_per_use, or offset_hz with symbol_rate_hz, got neither"
                "; write cycles_per_use: 1e-4"
            )
        else:
            check_finite("offset_hz", offset_hz, "100 Hz is 100.0")
        if symbol_rate_hz is not None:
            check_positive("symbol_rate_hz", symbol_rate_hz, "one use per microsecond is 1e6")
        self.offset_hz = None if offset_hz is None else float(offset_hz)
        self.symbol_rate_hz = None if symbol_rate_hz is None else float(symbol_rate_hz)
        self._cycles_per_use = cycles_per_use

    @property
    def cycles_per_use(self) -> float:
        """f, in cycles per channel use."""
        if self._cycles_per_use is not None:
            return float(self._cycles_per_use)
        if self.offset_hz is None or self.symbol_rate_hz is None:
            raise ValueError(
                f"a carrier offset of offset_hz={self.offset_hz} needs symbol_rate_hz, channel "
                "uses per second, outside a waveform; or write cycles_per_use: 1e-4"
            )
        return self.offset_hz / self.symbol_rate_hz

    def at_rate(self, rate_hz: float) -> CarrierOffset:
        """Return the same oscillator seen so many times per second; cycles per use stay."""
        if self.offset_hz is None:
            return self
        return CarrierOffset(
            offset_hz=self.offset_hz, symbol_rate_hz=rate_hz,
            tracked=self.tracked, antennas=self.num_tx,
        )  # fmt: skip

    def _phase(self, batch: int, uses: int, generator: torch.Generator) -> Tensor:
        use = torch.arange(uses, dtype=torch.float64, device=generator.device)
        return (2 * math.pi * self.cycles_per_use * use).expand(batch, -1)

    def _correlation(self, use: Tensor, other: Tensor) -> Tensor:
        angle = 2 * math.pi * self.cycles_per_use * (use - other).double()
        return torch.polar(torch.ones_like(angle), angle)

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        if self._cycles_per_use is None:
            return f"offset_hz={self.offset_hz}, tracked={self.tracked}"
        return f"cycles_per_use={self.cycles_per_use}, tracked={self.tracked}"


class PhaseNoise(_Oscillator):
    """Let the phase walk at random: Wiener phase noise of a free-running oscillator.

        phase[n] = phase[n - 1] + N(0, 2 pi linewidth_hz / symbol_rate_hz),  phase[0] = 0

    Args:
        linewidth_hz: full width at half maximum of the oscillator's Lorentzian spectrum.
        symbol_rate_hz: channel uses per second; within a waveform its own rate counts.
        tracked: whether h contains the rotation, so that perfect CSI undoes it; where false, h is
            1 and the receiver suffers.
        antennas: antennas side by side.

    Source: Demir, Mehrotra, Roychowdhury, Phase noise in oscillators (2000).
    """

    def __init__(
        self,
        linewidth_hz: float,
        symbol_rate_hz: float = 1e6,
        *,
        tracked: bool = True,
        antennas: int = 1,
    ) -> None:
        super().__init__(antennas, tracked)
        check_range("linewidth_hz", linewidth_hz, low=0.0, high=1e12, hint="a clean one is 0.0")
        check_positive("symbol_rate_hz", symbol_rate_hz, "one use per microsecond is 1e6")
        self.linewidth_hz = float(linewidth_hz)
        self.symbol_rate_hz = float(symbol_rate_hz)

    def at_rate(self, rate_hz: float) -> PhaseNoise:
        """Return the same oscillator seen so many times per second."""
        return PhaseNoise(self.linewidth_hz, rate_hz, tracked=self.tracked, antennas=self.num_tx)

    def _phase(self, batch: int, uses: int, generator: torch.Generator) -> Tensor:
        step = math.sqrt(2 * math.pi * self.linewidth_hz / self.symbol_rate_hz)
        steps = step * normal_by_use((batch,), uses, generator, torch.float64)
        return steps.cumsum(dim=-1) - steps[:, :1]

    def _correlation(self, use: Tensor, other: Tensor) -> Tensor:
        decay = math.pi * self.linewidth_hz / self.symbol_rate_hz
        return torch.exp(-decay * (use - other).abs().double())

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return (
            f"linewidth_hz={self.linewidth_hz}, symbol_rate_hz={self.symbol_rate_hz}, "
            f"tracked={self.tracked}"
        )


class Clipping(nn.Module):
    """Limit the amplitude, keep the phase: an ideally predistorted power amplifier.

        y = sqrt(T) x min(1, A / |x|),  A^2 = 10^(backoff_db / 10) / T

    h stays sqrt(T) I, what a linear amplifier would do. For Gaussian symbols the output is alpha x
    plus uncorrelated distortion (Bussgang), alpha in :attr:`bussgang_gain`.

    Args:
        backoff_db: saturation power over the mean input power of one antenna, in dB.
        antennas: antennas side by side, an amplifier each.

    Source: Ochiai, Imai, Performance analysis of deliberately clipped OFDM signals (2002).
    """

    only_gain = False
    acts_on = "samples"

    def __init__(self, backoff_db: float, antennas: int = 1) -> None:
        super().__init__()
        check_range("backoff_db", backoff_db, low=-100.0, high=300.0, hint="mild is 6 dB")
        check_count("antennas", antennas, "one antenna is antennas: 1")
        self.backoff_db = float(backoff_db)
        self.num_tx = self.num_rx = antennas

    @property
    def bussgang_gain(self) -> float:
        """alpha = 1 - e^(-g^2) + sqrt(pi) / 2 g erfc(g), g^2 the back-off, linear."""
        g = math.sqrt(db_to_linear(self.backoff_db))
        return 1 - math.exp(-(g**2)) + math.sqrt(math.pi) / 2 * g * math.erfc(g)

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        """Return h = sqrt(T) I, [B, T, T, 1]; nothing is drawn."""
        check_draw(batch, uses)
        h = _side_by_side(self.num_tx, generator.device).expand(batch, -1, -1, -1)
        return ChannelState(h, coherence=uses)

    def forward(
        self, x: Tensor, state: ChannelState, n0: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Send x [B, T, N], receive y [B, T, N]."""
        check_symbols(x, self.num_tx)
        limit = math.sqrt(db_to_linear(self.backoff_db) / self.num_tx)
        below = limit / x.abs().clamp(min=limit)  # 1 where |x| <= A, without dividing by zero
        return add_noise(math.sqrt(self.num_tx) * below * x, n0, generator)

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return f"backoff_db={self.backoff_db}, antennas={self.num_tx}"


def _side_by_side(antennas: int, device: torch.device) -> Tensor:
    h = math.sqrt(antennas) * torch.eye(antennas, dtype=torch.complex64, device=device)
    return h[None, :, :, None]
