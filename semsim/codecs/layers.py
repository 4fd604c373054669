"""Which codewords go on which streams, at which rate: everything a transmitter could offer.

    one codeword     a a a a      its symbols take the streams in turn, use by use
    two              a a b b      the better half of the streams, and the rest: 5G's mapping
    one per stream   a b c d

Each codeword has its own MCS and its own blocks. The image arrives if all of them do.

Source: 3GPP TS 38.211, table 7.3.1.3-1 (codeword-to-layer mapping).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semsim.codecs.harq import Harq
from semsim.codecs.outlook import Prospect
from semsim.phy.ldpc import Segmentation, segment
from semsim.phy.mcs import mcs_by_index

_TRADES = 16  # points on the trade of payload against safety between codewords
_SURE = 1e-9  # keeps logarithms finite


@dataclass(frozen=True)
class Codeword:
    """Coded blocks on some of the streams.

    Args:
        streams: which, in order: symbol k goes on stream ``streams[k mod len(streams)]``.
        cut: how the codeword is cut into blocks.
    """

    streams: tuple[int, ...]
    cut: Segmentation


@dataclass(frozen=True)
class Offer:
    """One way to send an image.

    Args:
        way: number of the way of sending (streams and powers).
        words: the codewords, best streams first.
        odds: probability that all arrive, as far as the transmitter knows.
    """

    way: int
    words: tuple[Codeword, ...]
    odds: float

    @property
    def payload(self) -> int:
        """Bits that all codewords carry together."""
        return sum(word.cut.payload for word in self.words)

    @property
    def rank(self) -> int:
        """Streams in use."""
        return sum(len(word.streams) for word in self.words)


def mappings(rank: int) -> list[tuple[tuple[int, ...], ...]]:
    """Return the mappings of codewords to the streams 0 to rank - 1."""
    every = tuple(range(rank))
    split = (every[: rank // 2], every[rank // 2 :])
    return list(
        dict.fromkeys(
            [(every,), *([split] if rank > 1 else []), tuple((place,) for place in every)]
        )
    )


def offers(
    prospects: Sequence[Prospect], rows: Sequence[int], uses: int, harq: Harq | None = None
) -> list[list[Offer]]:
    """Return for each item the offers of which none has both a smaller payload and smaller odds.

    Args:
        prospects: what items can expect of each way of sending.
        rows: of the MCS table.
        uses: symbols per stream.
        harq: how often blocks go again, if they do; offers whose mean number of channel uses
            exceeds the budget have no odds.
    """
    menus = [
        _Menu.of(way, prospect, mapping, rows, uses, harq)
        for way, prospect in enumerate(prospects)
        for mapping in mappings(prospect.way.rank)
        if len(mapping) == 1 or len(rows) > 1
    ]
    batch = len(prospects[0].alike)
    return [_undominated(menus, item) for item in range(batch)]


@dataclass(frozen=True)
class _Menu:
    """All offers of one way of sending with one mapping.

    Args:
        cuts: per codeword, per row.
        streams: which streams each item uses, [B, rank].
        rows: rows taken, [B, offers, codewords].
        payload, odds: of each offer, [B, offers].
    """

    way: int
    mapping: tuple[tuple[int, ...], ...]
    cuts: list[list[Segmentation]]
    streams: Tensor
    rows: Tensor
    payload: Tensor
    odds: Tensor

    @staticmethod
    def of(
        way: int,
        prospect: Prospect,
        mapping: tuple[tuple[int, ...], ...],
        rows: Sequence[int],
        uses: int,
        harq: Harq | None,
    ) -> _Menu:
        """Work out the offers."""
        cuts = [[segment(uses * len(word), mcs_by_index(row)) for row in rows] for word in mapping]
        chances = [
            prospect.arrives(word, ways_to_cut)[None]
            if harq is None
            else prospect.arrives_after(word, ways_to_cut, harq)
            for word, ways_to_cut in zip(mapping, cuts, strict=True)
        ]  # [rounds, B, rows, k] of each codeword
        payloads = torch.tensor(
            [[cut.payload for cut in ways_to_cut] for ways_to_cut in cuts], dtype=torch.float64
        )
        taken = _rows_taken([chance[-1] for chance in chances], payloads)
        joint: Tensor | float = 1.0
        for number, chance in enumerate(chances):
            index = taken[None, ..., number, None].expand(len(chance), -1, -1, chance.shape[-1])
            joint = joint * chance.gather(2, index)
        by_round = torch.as_tensor(joint).mean(dim=-1)  # [rounds, B, offers]
        odds = prospect.at_least(by_round[-1])
        if harq is not None:
            rounds = 1 + (1 - by_round[:-1]).sum(dim=0)
            odds = torch.where(rounds * float(harq.share) <= 1 + _SURE, odds, 0.0)
        payload = torch.stack([line[taken[..., n]] for n, line in enumerate(payloads)]).sum(dim=0)
        return _Menu(way, mapping, cuts, prospect.way.streams.cpu(), taken, payload, odds)

    def offer(self, item: int, number: int) -> Offer:
        """Return one offer to one item."""
        streams = self.streams[item].tolist()
        words = tuple(
            Codeword(tuple(streams[place] for place in word), self.cuts[n][row])
            for n, (word, row) in enumerate(
                zip(self.mapping, self.rows[item, number].tolist(), strict=True)
            )
        )
        return Offer(self.way, words, float(self.odds[item, number]))


def _rows_taken(chances: list[Tensor], payloads: Tensor) -> Tensor:
    """Return the combinations of rows worth a thought, [B, offers, codewords].

    One codeword may take every row. Of several, those that for some price of safety maximise
    sum of payload + price * log(odds) over the codewords, the upper hull of the trade.
    """
    batch, rows = len(chances[0]), payloads.shape[1]
    if len(chances) == 1:
        return torch.arange(rows)[None, :, None].expand(batch, -1, -1)
    price = payloads.amax() * len(chances) * torch.logspace(-2, 2, _TRADES, dtype=torch.float64)
    taken = []
    for chance, payload in zip(chances, payloads, strict=True):
        safety = chance.mean(dim=-1).clamp_min(_SURE).log()  # [B, rows]
        value = payload + price[:, None] * safety[:, None]  # [B, prices, rows]
        taken.append(value.argmax(dim=-1))
    return torch.stack(taken, dim=-1)


def _undominated(menus: list[_Menu], item: int) -> list[Offer]:
    payload = np.concatenate([menu.payload[item].numpy() for menu in menus])
    odds = np.concatenate([menu.odds[item].numpy() for menu in menus])
    where = [(menu, number) for menu in menus for number in range(menu.odds.shape[1])]
    found, best = [], -1.0
    for place in np.lexsort((-odds, -payload)):
        if odds[place] > best:
            best = odds[place]
            menu, number = where[place]
            found.append(menu.offer(item, number))
    return found
