"""What a transmitter can expect of its link, from what it knows and from what that is worth.

    probes      realisations of the link's own channel and CSI ─► (believed noise, noise met)
    an item     believed noise ─► probes with the most similar belief ─► their error, in dB
                                ─► how likely each block arrives

The transmitter knows the statistics of its channel and of its CSI, and the average SNR; of this
realisation it knows what ``csi.tx`` tells and nothing else. Where that is exact, so is the
forecast. Where it is quantised, late or estimated, the forecast is as cautious as the probes say;
where it is worthless or missing, it is the statistical one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from channels.base import CSI, Channel, ChannelState
from channels.csi import CSISource, remember
from channels.fading import apply_gain
from channels.units import db_to_linear
from semsim.codecs.harq import Harq
from semsim.codecs.outage import arrival, block_snr_db, separated
from semsim.phy.bler import belief_loss_db
from semsim.phy.combining import MAX_NOISE
from semsim.phy.frontend import FrontEnd
from semsim.phy.ldpc import Segmentation
from semsim.phy.qam import qam_points
from semsim.phy.rank import Way, behind, left_behind, of_streams, ways
from semsim.seeds import stream

_SHORT_USES = 32  # of a probe of a channel that is h alone, and constant
_LONG_USES = 1024  # of one that distorts
_PROBE_SYMBOLS = 1 << 21  # realisations times symbols of a probe, over all streams
_REALISATIONS = (32, 4096)  # at least, at most
_WINDOW = 64  # uses over which distortion is averaged where the gain varies
_ALIKE = 8  # an item is judged by one in so many probes, those with the most similar belief
_ABOUT_RIGHT = 1 / 3  # octaves by which the receiver may misjudge noise for nothing
_SILENT = 1e-6  # keeps the ratio of noise as met and as believed above 0
_TYPICAL_RATE = 0.5  # for what a wrong belief costs, which hardly depends on the code rate
_LATER = 16  # draws of what later rounds of hybrid ARQ meet, at least
_SAME = 1e-4  # bits per use; beliefs closer than that are one
_EXACT_DB = 0.01  # beliefs that err by less are taken for the truth


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


@dataclass(frozen=True)
class Prospect:
    """What items can expect of one way of sending.

    Args:
        way: streams and precoder.
        believed: noise per stream, [B, rank, 1 or N], linear; None where no channel is known.
        sounding: of that way.
        alike: the probes by which each item is judged, [B, k].
    """

    way: Way
    believed: Tensor | None
    sounding: Sounding
    alike: Tensor

    def arrives(self, word: Sequence[int], cuts: Sequence[Segmentation]) -> Tensor:
        """Return how likely a codeword arrives in each probe alike, [B, cuts, k].

        Args:
            word: the places among the way's streams over which it is spread.
            cuts: ways to cut it into blocks.
        """
        snrs: dict[tuple[int, int, int], Tensor] = {}
        chances = []
        for cut in cuts:
            key = (cut.mcs.bits_per_symbol, cut.blocks, cut.coded)
            if cut.blocks and key not in snrs:
                snrs[key] = self._snr_db(list(word), cut)
            chances.append(
                arrival(snrs[key], cut)
                if cut.blocks
                else torch.zeros(self.alike.shape, dtype=torch.float64)
            )
        return torch.stack(chances, dim=1)

    def arrives_after(
        self, word: Sequence[int], cuts: Sequence[Segmentation], harq: Harq
    ) -> Tensor:
        """Return how likely a codeword has arrived after each round, [rounds, B, cuts, k].

        Later rounds meet what any of the probes met, or the same where the fading is.
        """
        chances = []
        for cut in cuts:
            if not cut.blocks:
                first = torch.zeros(*self.alike.shape, 1, dtype=torch.float64)
            else:
                first = self._snr_db(list(word), cut)
            if self.believed is None or self.sounding.believed is None:
                first = first[:1]  # all items can expect the same
            if harq.fading == "new":
                first = first.expand(-1, max(first.shape[1], _LATER), -1)
            rounds = first.expand(harq.rounds, *first.shape).clone()
            if cut.blocks and harq.fading == "new":
                met = block_snr_db(_in_order(self.sounding.met, list(word)), cut)
                shape = (harq.rounds - 1, first.shape[1])
                drawn = torch.randint(len(met), shape, generator=stream(0, "rounds"))
                rounds[1:] = met[drawn][:, None]
            chance = harq.arrival(rounds, cut) if cut.blocks else torch.zeros(rounds.shape[:-1])
            chances.append(chance.double().expand(-1, len(self.alike), -1))
        return torch.stack(chances, dim=2)

    def _snr_db(self, word: list[int], cut: Segmentation) -> Tensor:
        """Return what the blocks meet, [B, k, blocks or 1], dB."""
        met = block_snr_db(_in_order(self.sounding.met, word), cut)
        if self.believed is None or self.sounding.believed is None:
            return met[self.alike]
        own = block_snr_db(_in_order(self.believed, word), cut)[:, None]
        if self.sounding.is_exact():
            return own
        believed = block_snr_db(_in_order(self.sounding.believed, word), cut)
        worth = _slope(believed, met)
        return (met - worth * believed)[self.alike] + worth * own


class Outlook:
    """Sends probes through realisations of the link's own channel, CSI and front end.

    They are drawn from a fixed seed, once per SNR and length.

    Args:
        channel, csi_rx, csi_tx, frontend: those of the link.
    """

    def __init__(
        self, channel: Channel, csi_rx: CSISource, csi_tx: CSISource, frontend: FrontEnd
    ) -> None:
        self.channel = channel
        self.csi_rx = csi_rx
        self.csi_tx = csi_tx
        self.frontend = frontend
        self._soundings: dict[tuple[float, int], list[Sounding]] = {}

    def prospects(self, csi_tx: CSI, snr_db: float, uses: int) -> list[Prospect]:
        """Return what items can expect, for each way of sending.

        Args:
            csi_tx: what the transmitter believes, h [B, R, T, 1 or N] or None.
            snr_db: the average SNR of all these items.
            uses: channel uses of an item.
        """
        key = (snr_db, uses)
        if key not in self._soundings:
            self._soundings[key] = self._sound(snr_db, uses, csi_tx.n0.device)
        choices = ways(self.frontend, csi_tx, self.channel.num_tx, self.channel.num_rx)
        return [
            self._prospect(way, csi_tx, sounding)
            for way, sounding in zip(choices, self._soundings[key], strict=True)
        ]

    def _prospect(self, way: Way, csi_tx: CSI, sounding: Sounding) -> Prospect:
        believed = self._believed(way, csi_tx)
        batch, count = len(csi_tx.n0), len(sounding.met)
        if believed is None or sounding.believed is None:
            alike = torch.arange(count).expand(batch, -1)
        elif sounding.is_exact():
            alike = torch.zeros(batch, 1, dtype=torch.long)
        elif bool((_carried(sounding.believed).std(dim=0) < _SAME).all()):
            alike = torch.arange(count).expand(batch, -1)  # a belief that never differs
        else:
            distance = torch.cdist(_carried(believed), _carried(sounding.believed))
            nearest = min(count, max(_REALISATIONS[0], count // _ALIKE))
            alike = distance.topk(nearest, largest=False).indices
        return Prospect(way, believed, sounding, alike)

    def _believed(self, way: Way, csi_tx: CSI) -> Tensor | None:
        """Return the noise left per used stream if the channel is what the transmitter believes."""
        seen = behind(csi_tx, way.precoder())
        if seen.h is None:
            return None
        return of_streams(separated(left_behind(self.frontend, seen)), way.streams).cpu()

    def _sound(self, snr_db: float, uses: int, device: torch.device) -> list[Sounding]:
        """Return a sounding of each way of sending; few probes do where beliefs are exact."""
        length = self._length(uses, stream(0, "outlook", device=device))
        streams = self.frontend.num_streams(self.channel.num_tx, self.channel.num_rx)
        least, most = _REALISATIONS
        enough = min(max(_PROBE_SYMBOLS // (length * streams), least), most // streams)
        for count in (least, enough):
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
            Sounding(self._believed(way, csi_tx), probe.met(way))
            for way in ways(self.frontend, csi_tx, self.channel.num_tx, self.channel.num_rx)
        ]

    def _length(self, uses: int, generator: torch.Generator) -> int:
        """Return the uses of a probe: few where the gain stays, and nothing else happens."""
        if self.channel.draw(1, uses, generator).h.shape[-1] > 1:
            return uses
        return min(uses, _SHORT_USES if self._is_gain(generator) else _LONG_USES)

    def _is_gain(self, generator: torch.Generator) -> bool:
        """Whether the channel does nothing but multiply by a constant h."""
        state = self.channel.draw(2, _LONG_USES, generator)
        x = _pilots(self.channel.num_tx, _LONG_USES, generator).expand(2, -1, -1)
        y = self.channel(x / math.sqrt(x.shape[1]), state, None, generator)
        h = state.h.expand(*state.h.shape[:-1], _LONG_USES)
        return torch.allclose(y, apply_gain(x / math.sqrt(x.shape[1]), h), rtol=1e-4, atol=1e-5)


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

        Distortion is what a probe without noise leaves. Where noise and distortion are far from
        what the receiver believes, its decoder pays for that too.
        """
        precoder = way.precoder()
        seen = behind(self.csi_rx, precoder)
        x = _pilots(precoder.shape[2], self.uses, self.generator)
        y = self.channel((precoder * x[:, None]).sum(dim=2), self.state, None, self.generator)
        streams, after = self.frontend.combine(y, seen)
        left = separated(after)
        met = (streams - x).abs().square() + self._thermal(y, seen)
        constant = seen.h is None or seen.h.shape[-1] == 1
        given_up = left >= MAX_NOISE  # arrives as 0, and says nothing
        ratio = _window_means(
            torch.where(given_up, 1, met / left), self.uses if constant else _WINDOW
        )
        paid_db = belief_loss_db(1 / ratio.clamp(min=_SILENT), _TYPICAL_RATE).to(ratio)
        wrong = (ratio.log2().abs() > _ABOUT_RIGHT) & (ratio > 0)
        ratio = torch.where(wrong, ratio * db_to_linear(paid_db), ratio.clamp(min=1.0))
        met = (left * ratio)[..., : 1 if constant else None]
        return of_streams(met, way.streams).cpu()

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


def _slope(x: Tensor, y: Tensor) -> float:
    """Return the slope of the regression of y on x, from 0 (x is worthless) to 1 (x is right)."""
    x, y = x - x.mean(), y - y.mean()
    return min(max(float((x * y).mean() / x.square().mean().clamp_min(1e-12)), 0.0), 1.0)


def _carried(noise: Tensor) -> Tensor:
    """Return what each stream would carry, [B, rank], bits per use, to compare beliefs by."""
    return torch.log2(1 + 1 / noise).mean(dim=-1)


def _in_order(noise: Tensor, word: list[int]) -> Tensor:
    """Return the noise of a codeword's symbols, [B, len(word) N], in order of their sending."""
    return noise[:, word].transpose(1, 2).flatten(1)
