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

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from channels.base import CSI, Channel
from channels.csi import CSISource
from semsim.codecs.harq import Harq
from semsim.codecs.outage import arrival, block_snr_db
from semsim.codecs.sounding import FEWEST, Sounder, Sounding, believed_noise, carried
from semsim.phy.frontend import FrontEnd
from semsim.phy.ldpc import Segmentation
from semsim.phy.rank import Way, ways
from semsim.seeds import stream

_ALIKE = 8  # an item is judged by one in so many probes, those with the most similar belief
_LATER = 16  # draws of what later rounds of hybrid ARQ meet, at least


@dataclass(frozen=True)
class Prospect:
    """What items can expect of one way of sending.

    Args:
        way: streams and precoder.
        believed: noise per stream, [B, rank, 1 or N], linear; None where nothing worth is known.
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
        near, met = believed[self.alike], met[self.alike]
        return met + _slopes(near, met) * (own - near)

    def at_least(self, odds: Tensor) -> Tensor:
        """Return odds [B, ...] that these probes found, less one standard error.

        Counted is what they are less sure than all probes together, so that who believes something
        leaves what statistics recommend only for what is better by more than chance.
        """
        if self.believed is None or self.sounding.is_exact():
            return odds
        doubt = 1 / self.alike.shape[1] - 1 / len(self.sounding.met)
        return (odds - (odds * (1 - odds) * doubt).clamp_min(0).sqrt()).clamp_min(0)


class Outlook:
    """Has probes sent through the link's own channel, once per SNR and length.

    Args:
        channel, csi_rx, csi_tx, frontend: those of the link.
    """

    def __init__(
        self, channel: Channel, csi_rx: CSISource, csi_tx: CSISource, frontend: FrontEnd
    ) -> None:
        self.channel = channel
        self.frontend = frontend
        self._sounder = Sounder(channel, csi_rx, csi_tx, frontend)
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
            self._soundings[key] = self._sounder.soundings(snr_db, uses, csi_tx.n0.device)
        choices = ways(self.frontend, csi_tx, self.channel.num_tx, self.channel.num_rx)
        return [
            self._prospect(way, csi_tx, sounding)
            for way, sounding in zip(choices, self._soundings[key], strict=True)
        ]

    def _prospect(self, way: Way, csi_tx: CSI, sounding: Sounding) -> Prospect:
        believed = believed_noise(self.frontend, way, csi_tx)
        batch, count = len(csi_tx.n0), len(sounding.met)
        if believed is not None and sounding.is_exact():
            alike = torch.zeros(batch, 1, dtype=torch.long)
        elif believed is None or sounding.believed is None or not sounding.tells():
            believed, alike = None, torch.arange(count).expand(batch, -1)
        else:
            distance = torch.cdist(carried(believed), carried(sounding.believed))
            nearest = min(count, max(FEWEST, count // _ALIKE))
            alike = distance.topk(nearest, largest=False).indices
        return Prospect(way, believed, sounding, alike)


def _slopes(x: Tensor, y: Tensor) -> Tensor:
    """Return the slopes of the regressions of y on x, from 0 (x is worthless) to 1 (x is right).

    One for each item among its own probes: [B, k, blocks] to [B, 1, 1].
    """
    x, y = (values - values.mean(dim=(1, 2), keepdim=True) for values in (x, y))
    spread = x.square().mean(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    return ((x * y).mean(dim=(1, 2), keepdim=True) / spread).clamp(0, 1)


def _in_order(noise: Tensor, word: list[int]) -> Tensor:
    """Return the noise of a codeword's symbols, [B, len(word) N], in order of their sending."""
    return noise[:, word].transpose(1, 2).flatten(1)
