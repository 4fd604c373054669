"""What probes met: realisations of a link's own channel and CSI, sent through its front end.

    channel, csi, front end ─► (noise as the transmitter believes, noise and distortion met)

They are drawn from a fixed seed. Distortion is what a probe without noise leaves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from channels.base import CSI, Channel, ChannelState
from channels.blocks import varies
from channels.csi import CSISource, remember
from channels.gain import apply_gain
from channels.units import db_to_linear
from semsim.codecs.outage import separated
from semsim.phy.bler import belief_loss_db
from semsim.phy.combining import MAX_NOISE
from semsim.phy.frontend import FrontEnd
from semsim.phy.qam import qam_points
from semsim.phy.rank import Way, behind, left_behind, of_streams, ways
from semsim.seeds import stream

FEWEST, MOST = 32, 4096  #: realisations of the channel

_SHORT_USES = 32  # of a probe of a channel that is h alone, and constant
_LONG_USES = 1024  # of one that distorts
_PROBE_SYMBOLS = 1 << 21  # realisations times symbols of a probe, over all streams
_WINDOW = 64  # uses over which distortion is averaged where the gain varies
_ABOUT_RIGHT = 1 / 3  # octaves by which the receiver may misjudge noise for nothing
_SILENT = 1e-6  # keeps the ratio of noise as met and as believed above 0
_TYPICAL_RATE = 0.5  # for what a wrong belief costs, which hardly depends on the code rate
_SAME = 1e-4  # bits per use; beliefs closer than that are one
_EXACT_DB = 0.01  # beliefs that err by less are taken for the truth
_BY_CHANCE = 3.0  # standard errors of a correlation that says nothing


@dataclass(frozen=True)
class Sounding:
    """What the probes met in one way of sending, and what the transmitter had believed.

    Args:
        believed: noise per stream as the transmitter's CSI has it, [M, rank, 1 or N], linear; None
            where it knows no channel.
        met: noise and distortion that were there, same shape.
    """

    believed: Tensor | None
    met: Tensor

    def is_exact(self) -> bool:
        """Whether what was believed was true in all probes."""
        if self.believed is None:
            return False
        return float((10 * torch.log10(self.met / self.believed)).abs().max()) < _EXACT_DB

    def tells(self) -> bool:
        """Whether what was believed says more of what was met than chance explains."""
        if self.believed is None:
            return False
        believed, met = carried(self.believed), carried(self.met)
        if bool((believed.std(dim=0) < _SAME).all()):
            return False  # a belief that never differs
        together = ((believed - believed.mean(dim=0)) * (met - met.mean(dim=0))).mean(dim=0)
        spread = (believed.std(dim=0) * met.std(dim=0)).clamp_min(_SAME**2)
        return bool((together / spread > _BY_CHANCE / math.sqrt(len(met))).any())


def carried(noise: Tensor) -> Tensor:
    """Return what each stream would carry, [B, rank], bits per use, to compare beliefs by."""
    return torch.log2(1 + 1 / noise).mean(dim=-1)


@dataclass(frozen=True)
class Sounder:
    """Sends the probes.

    Args:
        channel, csi_rx, csi_tx, frontend: those of the link.
    """

    channel: Channel
    csi_rx: CSISource
    csi_tx: CSISource
    frontend: FrontEnd

    def soundings(self, snr_db: float, uses: int, device: torch.device) -> list[Sounding]:
        """Return a sounding of each way of sending; few probes do where beliefs are exact."""
        length = self._length(uses, stream(0, "outlook", device=device))
        streams = self.frontend.num_streams(self.channel.num_tx, self.channel.num_rx)
        symbols = _PROBE_SYMBOLS // (getattr(self.channel, "work", 1))
        enough = min(max(symbols // (length * streams), FEWEST), MOST // streams)
        for count in (FEWEST, enough):
            found = self._soundings_of(count, length, snr_db, device)
            if all(sounding.is_exact() for sounding in found):
                break
        return found

    def _soundings_of(
        self, count: int, length: int, snr_db: float, device: torch.device
    ) -> list[Sounding]:
        generator = stream(0, "outlook", snr_db, device=device)
        n0 = torch.full((count,), db_to_linear(-snr_db), device=device)
        state = self.channel.draw(count, length, generator)
        csi_rx = self.csi_rx(state, n0, generator)
        told = remember(self.csi_rx, csi_rx, state, n0, generator)
        csi_tx = self.csi_tx(state, n0, generator, told)
        probe = _Probe(self.channel, self.frontend, state, csi_rx, n0, length, generator)
        return [
            Sounding(believed_noise(self.frontend, way, csi_tx), probe.met(way))
            for way in ways(self.frontend, csi_tx, self.channel.num_tx, self.channel.num_rx)
        ]

    def _length(self, uses: int, generator: torch.Generator) -> int:
        """Return the uses of a probe: few where the gain stays, and nothing else happens."""
        if varies(self.channel.draw(1, uses, generator)):
            return uses
        return min(uses, _SHORT_USES if self._is_gain(generator) else _LONG_USES)

    def _is_gain(self, generator: torch.Generator) -> bool:
        """Whether the channel does nothing but multiply by a constant h."""
        state = self.channel.draw(2, _LONG_USES, generator)
        x = _pilots(self.channel.num_tx, _LONG_USES, generator).expand(2, -1, -1)
        y = self.channel(x / math.sqrt(x.shape[1]), state, None, generator)
        h = state.h.expand(*state.h.shape[:-1], _LONG_USES)
        return torch.allclose(y, apply_gain(x / math.sqrt(x.shape[1]), h), rtol=1e-4, atol=1e-5)


def believed_noise(frontend: FrontEnd, way: Way, csi_tx: CSI) -> Tensor | None:
    """Return the noise left per used stream if the channel is what the transmitter believes."""
    seen = behind(csi_tx, way.precoder())
    if seen.h is None:
        return None
    return of_streams(separated(left_behind(frontend, seen)), way.streams).cpu()


@dataclass(frozen=True)
class _Probe:
    """Realisations of a channel, and what a receiver would make of symbols sent through them."""

    channel: Channel
    frontend: FrontEnd
    state: ChannelState
    csi_rx: CSI
    n0: Tensor
    uses: int
    generator: torch.Generator

    def met(self, way: Way) -> Tensor:
        """Return the noise and distortion per used stream, [M, rank, 1 or N], linear.

        Distortion is what a probe without noise leaves. Where the receiver, which knows h from
        pilots, takes a gain g for 1, noise counts over |g|^2, and |g - 1|^2 beside it: a shrunken
        constellation has less signal, and an error that is always the same. Where noise and
        distortion are far from what the receiver believes, its decoder pays for that too.
        """
        precoder = way.precoder()
        seen = behind(self.csi_rx, precoder)
        x = _pilots(precoder.shape[2], self.uses, self.generator)
        y = self.channel((precoder * x[:, None]).sum(dim=2), self.state, None, self.generator)
        streams, after = self.frontend.combine(y, seen)
        left = separated(after)
        gain = self._gains(precoder, seen)
        beside = (streams - gain * x).abs().square() + self._thermal(y, seen)
        met = beside / gain.abs().square().clamp_min(_SILENT) + (gain - 1).abs().square()
        constant = not varies(seen)
        given_up = left >= MAX_NOISE  # arrives as 0, and says nothing
        ratio = _window_means(
            torch.where(given_up, 1, met / left), self.uses if constant else _WINDOW
        )
        paid_db = belief_loss_db(1 / ratio.clamp(min=_SILENT), _TYPICAL_RATE).to(ratio)
        wrong = (ratio.log2().abs() > _ABOUT_RIGHT) & (ratio > 0)
        ratio = torch.where(wrong, ratio * db_to_linear(paid_db), ratio.clamp(min=1.0))
        met = (left * ratio)[..., : 1 if constant else None]
        return of_streams(met, way.streams).cpu()

    def _gains(self, precoder: Tensor, seen: CSI) -> Tensor:
        """Return what the combiner makes of each stream's own symbols, [M, S, N]; 1 if it is right.

        Where it gives a stream up, that is 1 too: nothing is sent on it, or nothing arrives.
        """
        gains = []
        shape = (len(self.n0), precoder.shape[1], self.uses)
        for own in range(precoder.shape[2]):
            y = apply_gain(precoder[:, :, own].expand(shape), self.state.h)
            streams, after = self.frontend.combine(y, seen)
            given_up = separated(after)[:, own] >= MAX_NOISE
            gains.append(torch.where(given_up, 1, streams[:, own]))
        return torch.stack(gains, dim=1)

    def _thermal(self, y: Tensor, seen: CSI) -> Tensor:
        """Return what the combiner lets through of noise of power n0, [M, S, N]."""
        gain: Tensor | float = 0.0
        for antenna in range(y.shape[1]):
            alone = torch.zeros_like(y)
            alone[:, antenna] = 1
            gain = gain + self.frontend.combine(alone, seen)[0].abs().square()
        return gain * self.n0[:, None, None]


def _pilots(streams: int, uses: int, generator: torch.Generator) -> Tensor:
    """Return orthogonal symbols of modulus 1, [1, S, N]: crosstalk shows at its mean power."""
    points = qam_points(2).to(generator.device)
    common = points[torch.randint(4, (uses,), generator=generator, device=generator.device)]
    turns = torch.arange(streams, device=generator.device)[:, None] / uses
    phase = 2 * math.pi * turns * torch.arange(uses, device=generator.device)
    return (common * torch.polar(torch.ones_like(phase), phase))[None]


def _window_means(values: Tensor, length: int) -> Tensor:
    """Replace values [..., N] by their means over windows of ``length`` uses."""
    length = min(length, values.shape[-1])
    rest = values.shape[-1] % length
    whole = values[..., : values.shape[-1] - rest].unflatten(-1, (-1, length))
    parts = [whole.mean(dim=-1, keepdim=True).expand_as(whole).flatten(-2)]
    if rest:
        parts.append(values[..., -rest:].mean(dim=-1, keepdim=True).expand_as(values[..., -rest:]))
    return torch.cat(parts, dim=-1)
