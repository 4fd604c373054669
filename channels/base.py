"""What every channel, and everything that knows a channel, agrees on.

Axes, once for all: B batch, T transmit antennas, R receive antennas, N channel uses, S streams.
One antenna is T = R = 1, never a missing axis.

Power: mean |x|^2 summed over transmit antennas is 1 per channel use.
SNR: ``snr_db`` is the average received Es/N0 per receive antenna before combining, with
E|h[r, t]|^2 = 1, so ``n0 = 10^(-snr_db / 10)``; complex noise has variance n0, n0/2 per real part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from channels.units import linear_to_db

if TYPE_CHECKING:
    from channels.grid import ResourceGrid

_ROUNDING = 1e-13  # of symbols in single precision


@dataclass(frozen=True)
class ChannelState:
    """One realisation of a channel, drawn before anything is sent.

    Args:
        h: gain from transmit to receive antenna, [B, R, T, N], or [B, R, T, 1] where it is the same
            for all uses; complex.
        coherence: channel uses over which ``h`` stays constant (all of them for block fading); over
            OFDM, subcarriers over which it stays correlated by 0.9.
        interference: power received beside the signal, linear, per receive antenna.
        stages: states of the stages of a cascade, in order of passage.
        motion: returns ``h`` at moments in s from now, [M] to [B, R, T, M, N or 1], for a channel
            that moves by itself.
        join: returns ``h`` and ``covariance`` from the stages, for a channel that moves as they do.
        grid: where the uses stand on an OFDM grid, and what is known of it in the long run.
        covariance: of the interference at the receive antennas, [B, R, R, 1 or N], complex128, so
            that what is weak beside a strong interferer keeps its digits; None where it is white.
        correlation: returns E[h h*] of pairs of uses, [M] and [M] to [M] in double precision, for a
            gain that moves within its blocks as an oscillator's does; None where it stays.
        waveform: turns what is sent, [B, T, N], into the signal in time that leaves the antennas,
            [B, T, samples], where the two differ.
        offset: uses of the first coherence block that lie before the first use.
    """

    h: Tensor
    coherence: int
    interference: float = 0.0
    stages: tuple[ChannelState, ...] = ()
    motion: Callable[[Tensor], Tensor] | None = None
    join: Callable[[tuple[ChannelState, ...]], tuple[Tensor, Tensor | None]] | None = None
    grid: ResourceGrid | None = None
    covariance: Tensor | None = None
    correlation: Callable[[Tensor, Tensor], Tensor] | None = None
    waveform: Callable[[Tensor], Tensor] | None = None
    offset: int = 0

    @property
    def uses(self) -> int:
        """Channel uses that it was drawn for."""
        return self.h.shape[-1] if self.h.shape[-1] > 1 else self.coherence

    @property
    def middles(self) -> Tensor:
        """The use in the middle of each use's block, [N]; the first and the last may be short."""
        use = torch.arange(self.uses)
        start = use - (use + self.offset) % self.coherence
        end = (start + self.coherence).clamp(max=self.uses)
        start = start.clamp(min=0)
        return start + (end - start) // 2

    @property
    def drift(self) -> float:
        """Mean power by which ``h`` is expected to leave its value in the middle of its block."""
        if self.correlation is None:
            return 0.0
        use, middle = torch.arange(self.uses), self.middles
        alike = self.correlation(middle, middle) - self.correlation(use, middle)
        return float(2 * alike.real.mean())

    @property
    def symbol_uses(self) -> int:
        """Uses that are sent together: the subcarriers of an OFDM symbol, or 1."""
        own = self.grid.subcarriers if self.grid is not None else 1
        return max(own, *(stage.symbol_uses for stage in self.stages), 1)

    @property
    def moves(self) -> bool:
        """Tell whether the channel is another one at other times."""
        own = self.motion is not None
        return own or (self.join is not None and any(stage.moves for stage in self.stages))

    def earlier(self, delay_s: float) -> ChannelState:
        """Return the same realisation as it was ``delay_s`` ago, in s; itself if it stands still.

        Asking changes nothing: what is sent still meets this state, and no generator advances.
        """
        if delay_s < 0:
            raise ValueError(f"delay_s is 0 or more, got {delay_s}; a channel tells its past only")
        return self._later(-delay_s)

    def during(self, start: int, stop: int, *, later_s: float = 0.0) -> ChannelState:
        """Return a stretch of the same realisation, with all its stages.

        Args:
            start: its first channel use; over an OFDM grid the first of an OFDM symbol.
            stop: the use after its last.
            later_s: s by which all of it is later than what was drawn; earlier where negative.
        """
        if not 0 <= start < stop <= self.uses or start % self.symbol_uses:
            whole = f", start a multiple of {self.symbol_uses}" if self.symbol_uses > 1 else ""
            raise ValueError(
                f"a stretch lies within the {self.uses} uses that were drawn, 0 <= start < stop <= "
                f"{self.uses}{whole}, got start={start}, stop={stop}; draw more uses, or say how "
                "much later it is by later_s"
            )
        state = self._later(later_s)
        return state if (start, stop) == (0, self.uses) else state._cut(start, stop)

    def gains(self, times_s: Tensor) -> Tensor:
        """Return h at moments [M], in s from now, [B, R, T, M, N or 1]."""
        if not self.moves:
            return self.h.unsqueeze(3).expand(-1, -1, -1, len(times_s), -1)
        if self.motion is not None:
            return self.motion(times_s)
        return self._gains_of_stages(times_s)

    def _gains_of_stages(self, times_s: Tensor) -> Tensor:
        """Join the stages as one that has M times as many uses."""
        assert self.join is not None  # for mypy: what moves without motion moves by its stages
        moments = len(times_s)
        uses = max(state.h.shape[-1] for state in (self, *self.stages))
        longer = tuple(
            replace(
                stage,
                h=stage.gains(times_s).expand(-1, -1, -1, moments, uses).flatten(3),
                covariance=None,
            )
            for stage in self.stages
        )
        return self.join(longer)[0].unflatten(-1, (moments, uses))

    def _later(self, later_s: float) -> ChannelState:
        if later_s == 0 or not self.moves:
            return self
        if self.motion is not None:
            moment = torch.tensor([later_s], dtype=torch.float64)
            since = partial(_since, self.motion, later_s)
            return replace(self, h=self.motion(moment)[:, :, :, 0], motion=since)
        assert self.join is not None  # for mypy: what moves without motion moves by its stages
        stages = tuple(stage._later(later_s) for stage in self.stages)
        h, covariance = self.join(stages)
        return replace(self, h=h, covariance=covariance, stages=stages)

    def _cut(self, start: int, stop: int) -> ChannelState:
        """Return uses from start to before stop; a block may be cut at both ends."""
        constant, length = self.h.shape[-1] == 1, stop - start
        offset = (self.offset + start) % self.coherence
        if constant or self.grid is not None or offset + length <= self.coherence:
            offset, coherence = 0, length if constant else min(self.coherence, length)
        else:
            coherence = self.coherence
        return replace(
            self,
            h=_between(self.h, start, stop),
            coherence=coherence,
            offset=offset,
            stages=self._cut_stages(start, stop),
            motion=self.motion and partial(_within, self.motion, start, stop),
            covariance=None if self.covariance is None else _between(self.covariance, start, stop),
        )

    def _cut_stages(self, start: int, stop: int) -> tuple[ChannelState, ...]:
        return tuple(stage._cut(start, stop) for stage in self.stages)

    def coloured(self) -> Tensor:
        """Return the covariance of the interference, [B, R, R, 1 or N], also where it is white."""
        if self.covariance is not None:
            return self.covariance
        eye = torch.eye(self.h.shape[1], dtype=torch.complex128, device=self.h.device)
        return (self.interference * eye)[None, ..., None].expand(len(self.h), -1, -1, -1)


@dataclass(frozen=True)
class CSI:
    """What one end believes of the channel.

    Args:
        h: believed gain, as in :class:`ChannelState`; None where the end does not know it, or where
            a front end has already removed it.
        n0: believed noise power per complex symbol, linear: [B], or [B, 1, N] where it differs
            among channel uses, or [B, S, N] after a front end.
        past: returns what this end believed some seconds ago, for one that is told late.
        covariance: of noise and interference together at the receive antennas, [B, R, R, 1 or N],
            complex128; None where the end knows no more than their power n0.
        foreseen: returns what the front end will leave of it, for a transmitter that sees h too.
    """

    h: Tensor | None
    n0: Tensor
    past: Callable[[float], CSI] | None = None
    covariance: Tensor | None = None
    foreseen: Callable[[], CSI] | None = None

    @property
    def separated(self) -> bool:
        """Tell whether streams stand by themselves, each symbol with its own noise."""
        return self.h is None and self.n0.dim() > 1

    def effective_snr_db(self) -> Tensor:
        """Return the SNR of the AWGN channel with the same mean capacity per symbol, [B], in dB.

        A mean of the SNR itself would be ruled by its best symbols, a mean of n0 by its worst.
        No more than 130 dB: beyond, single precision makes more noise than the channel.
        """
        snr = 1 / self.n0.clamp_min(_ROUNDING)
        if self.h is not None:
            gain = self.h.abs().square().sum(dim=(1, 2))  # [B, N]
            snr = gain * (snr[:, None] if snr.dim() == 1 else snr.mean(dim=1))
        capacity = torch.log1p(snr.flatten(1) if snr.dim() > 1 else snr[:, None]).mean(dim=1)
        return linear_to_db(torch.expm1(capacity))


class Channel(Protocol):
    """A channel in two steps, because a transmitter may need CSI before it sends.

    Holds no SNR and no seed; differentiable in ``x``; adds nothing to a ``state_dict``.

    A class may declare more: ``acts_on = "samples"`` where it is hardware that acts on the signal
    in time and may stand in a waveform, with ``at_rate(rate_hz)`` where it needs to know their
    rate; ``work``, how many times what symbols alone cost it costs to send them; ``only_gain =
    False`` where it does more than h says; ``only_training = True`` where no result may be measured
    over it; and a class method ``example()`` for the tests of the
    family, where its constructor needs arguments.
    """

    num_tx: int
    num_rx: int

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        """Draw ``batch`` realisations of ``uses`` channel uses on the generator's device."""
        ...

    def __call__(
        self, x: Tensor, state: ChannelState, n0: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Send x [B, T, N], receive y [B, R, N]; n0 [B], linear; no noise where n0 is None."""
        ...


def acts_on_samples(channel: Channel) -> bool:
    """Tell whether a channel is hardware, which over OFDM meets samples and not channel uses."""
    return getattr(channel, "acts_on", "uses") == "samples"


def _since(motion: Callable[[Tensor], Tensor], since_s: float, times_s: Tensor) -> Tensor:
    return motion(times_s + since_s)


def _within(motion: Callable[[Tensor], Tensor], start: int, stop: int, times_s: Tensor) -> Tensor:
    return _between(motion(times_s), start, stop)


def _between(values: Tensor, start: int, stop: int) -> Tensor:
    """Return uses of values [..., N or 1]."""
    return values if values.shape[-1] == 1 else values[..., start:stop]


def complex_normal(
    shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype = torch.complex64
) -> Tensor:
    """Draw CN(0, 1) on the generator's device: variance 1 per complex number, 1/2 per real part."""
    return torch.randn(shape, generator=generator, dtype=dtype, device=generator.device)


def check_symbols(x: Tensor, num_tx: int) -> None:
    """Raise ValueError unless x is complex [B, num_tx, N]."""
    if x.dtype not in (torch.complex64, torch.complex128):
        raise ValueError(
            f"a channel carries complex64 or complex128, got {x.dtype}; pair reals with "
            "torch.complex(i, q)"
        )
    if x.dim() != 3 or x.shape[1] != num_tx:
        raise ValueError(
            f"this channel carries x of shape [B, {num_tx}, N] (batch, transmit antennas, channel "
            f"uses), got {list(x.shape)}; for one antenna add the axis with x.unsqueeze(1)"
        )
