"""One batch of images on its way through a separate link: plans, symbols, and what arrives.

images, csi_tx ─► offers ─► plans ─► precoder, symbols ─► air ─► blocks ─► images
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from channels.base import CSI
from semsim.codecs.envelope import Plan, best_plan
from semsim.codecs.image_codecs import Pixels
from semsim.codecs.layers import Codeword, Offer, offers
from semsim.codecs.outage import arrived, separated
from semsim.codecs.outlook import Outlook
from semsim.codecs.stills import each, sources_of
from semsim.hop import Hop
from semsim.phy.ldpc import SoftBlocks, ldpc_modulate, segment
from semsim.phy.mcs import mcs_by_index
from semsim.phy.qam import qam_llr, qam_points, qam_signed_llr
from semsim.phy.rank import Way, ways

if TYPE_CHECKING:
    from semsim.codecs.separate import SeparateTransmitter


class Passage:
    """One batch on its way: both ends of a hop, with the plans that they share.

    Args:
        transmitter: of the images.
        hop: what carries the symbols.
        images: of the batch.
        total: symbols of each, K.
        outlook: what to expect of the hop, where there is anything to choose.
    """

    def __init__(
        self,
        transmitter: SeparateTransmitter,
        hop: Hop,
        images: list[Pixels],
        total: int,
        outlook: Outlook | None = None,
    ) -> None:
        self.transmitter, self.hop, self.images, self.outlook = transmitter, hop, images, outlook
        self.total, self.forecast = total, False
        harq = transmitter.harq
        self.versions = (0,) if harq is None else harq.versions
        self.uses = total // hop.num_streams  # a last use with fewer symbols is padding
        self.plans: list[Plan] = []
        self.symbols = torch.empty(len(images), 1, total, dtype=torch.complex64)
        self.scrambling: list[np.ndarray] = []
        self.round = 0
        self.memory: list[list[SoftBlocks]] = []
        self.luck: list[float] = []
        self.arrived: list[Pixels | None] = [None] * len(images)
        self.rounds = [0] * len(images)

    def notes(self) -> dict[str, Tensor]:
        """Return the choice and the success of each item."""
        chosen = [plan.offer for plan in self.plans]
        return {
            "rank": torch.tensor([offer.rank for offer in chosen]),
            "codewords": torch.tensor([len(offer.words) for offer in chosen]),
            **({"odds": torch.tensor([offer.odds for offer in chosen])} if self.forecast else {}),
            "mcs": torch.tensor([offer.words[0].cut.mcs.index for offer in chosen]),
            "bits": torch.tensor([plan.offer.payload if plan.coded else 0 for plan in self.plans]),
            "decoded": torch.tensor([image is not None for image in self.arrived]).float(),
            **({"rounds": torch.tensor(self.rounds)} if self.transmitter.harq is not None else {}),
        }

    def is_over(self) -> bool:
        """Whether no image is worth, or can be sent in, another round."""
        return self.round == len(self.versions) or not any(map(self._waits, range(len(self.plans))))

    def _waits(self, item: int) -> bool:
        """Whether an image was sent and has not arrived yet."""
        return self.arrived[item] is None and self.plans[item].coded is not None

    def steer(self, csi_tx: CSI, snrs_db: list[float]) -> Tensor:
        """Return the precoder of the plans, [B, T, S, 1 or N]; the first round makes them.

        It is zero for the streams that an item leaves out.
        """
        precoders: dict[int, Tensor] = {}
        plans: dict[int, Plan] = dict(enumerate(self.plans))
        for snr_db in sorted(set(snrs_db)):
            items = [item for item, value in enumerate(snrs_db) if value == snr_db]
            known = _of_items(csi_tx, items)
            choices = self._ways(known)
            if not self.plans:
                menus = self._offers(choices, known, snr_db)
                made = each(self._best, list(zip(items, menus, strict=True)))
                plans.update(zip(items, made, strict=True))
            for number in {plans[item].offer.way for item in items}:
                way = choices[number][1]
                matrices = way.precoder()
                for place, item in enumerate(items):
                    if plans[item].offer.way == number:
                        precoders[item] = matrices[place]
                        plans[item] = self._follow(item, plans[item], way.streams[place].tolist())
        self.plans = [plans[item] for item in range(len(plans))]
        return torch.stack([precoders[item] for item in range(len(plans))])

    def _follow(self, item: int, plan: Plan, streams: list[int]) -> Plan:
        """Return the plan with its codewords on these streams: a round may have other best ones."""
        before = [stream for word in plan.offer.words for stream in word.streams]
        if streams == before:
            return plan
        grid = self.symbols[item, 0, : self.uses * self.hop.num_streams].view(self.uses, -1)
        grid[:, streams] = grid[:, before]
        left = iter(streams)
        words = tuple(
            replace(word, streams=tuple(islice(left, len(word.streams))))
            for word in plan.offer.words
        )
        return replace(plan, offer=replace(plan.offer, words=words))

    def _best(self, job: tuple[int, list[Offer]]) -> Plan:
        """Return the plan of an item out of its offers."""
        must_send = len(self.transmitter.rows()) == 1
        return best_plan(self.transmitter.stills, self.images[job[0]], job[1], must_send=must_send)

    def _ways(self, csi_tx: CSI) -> list[tuple[int, Way]]:
        """Return the ways of sending with the rank that is asked for, and their numbers."""
        hop, rank = self.hop, self.transmitter.rank
        choices = ways(hop.frontend, csi_tx, hop.channel.num_tx, hop.channel.num_rx)
        kept = [(n, way) for n, way in enumerate(choices) if rank in ("best", way.rank)]
        if not kept:
            raise ValueError(
                f"rank={rank}, but the front end has {hop.num_streams} streams; "
                "set rank to at most that many, or 'best'"
            )
        return kept

    def _offers(
        self, choices: list[tuple[int, Way]], csi_tx: CSI, snr_db: float
    ) -> list[list[Offer]]:
        """Return for each item the offers it may choose from."""
        rows = self.transmitter.rows()
        if self.outlook is None or len(rows) * len(choices) == 1:  # nothing to choose
            way = choices[0][1]
            cut = segment(self.uses * way.rank, mcs_by_index(rows[0]))
            return [[Offer(0, (Codeword(tuple(s), cut),), 1.0)] for s in way.streams.tolist()]
        air_uses = -(-self.total // self.hop.num_streams)
        self.forecast = True
        prospects = self.outlook.prospects(csi_tx, round(snr_db, 4), air_uses)
        kept = [prospects[number] for number, _ in choices]
        harq = self.transmitter.harq if len(rows) > 1 else None
        return offers(kept, rows, self.uses, harq)

    def send(self, generator: torch.Generator) -> Tensor:
        """Return the symbols [B, 1, K] of the plans in this round, on the CPU."""
        if self.round == 0:
            self.memory = [[SoftBlocks(w.cut) for w in plan.offer.words] for plan in self.plans]
        if self.round == 0 or self.versions[self.round] != self.versions[self.round - 1]:
            for item, plan in enumerate(self.plans):
                self.symbols[item, 0] = self._modulate(item, plan, generator)
        return self.symbols.clone()

    def in_use(self, symbols: Tensor) -> Tensor:
        """Return symbols [B, 1, K] with 0 for those on streams that an item leaves out."""
        stream = torch.arange(symbols.shape[-1]) % self.hop.num_streams
        used = [[s for word in plan.offer.words for s in word.streams] for plan in self.plans]
        kept = torch.stack([torch.isin(stream, torch.tensor(own)) for own in used])
        return symbols * kept[:, None].to(symbols.device)

    def receive(
        self, y: Tensor, csi: CSI, shape: tuple[int, ...], generator: torch.Generator
    ) -> Tensor:
        """Return the images [B, C, H, W], or what stands in for those that are lost."""
        if self.round == 0:
            self.luck = torch.rand(len(y), generator=generator, dtype=torch.float64).tolist()
        left = separated(csi)
        read = self._look_up if self.transmitter.engine == "bler" else self._decode
        jobs = []
        for item, plan in enumerate(self.plans):
            if self.arrived[item] is None and (self.round == 0 or plan.coded is not None):
                self.rounds[item] += 1
                message = read(item, plan, y[item, 0].cpu(), left[item, 0].cpu())
                jobs.append((item, plan.image, message))
        shown = each(lambda job: self._shown(*job[1:]), jobs)
        for (item, *_), image in zip(jobs, shown, strict=True):
            self.arrived[item] = image
        self.round += 1
        images = [
            self.transmitter.stills.lost(plan.image) if image is None else image
            for plan, image in zip(self.plans, self.arrived, strict=True)
        ]
        return sources_of(images, like=y.real.new_empty(0, *shape))

    def _shown(self, sent: Pixels, message: bytes | None) -> Pixels | None:
        """Return the image in a message; None where there is none."""
        if message is None:
            return None
        try:
            image = self.transmitter.stills.unpack(message, *sent.shape[:2])
        except Exception:  # a short CRC passes one wrong block in 65536; codecs choke in many ways
            return None
        return image if image.shape == sent.shape else None

    def _of_word(self, symbols: Tensor, word: Codeword) -> Tensor:
        """Return what is on a codeword's streams, in order, out of all symbols [K]."""
        grid = symbols[: self.uses * self.hop.num_streams].view(self.uses, -1)
        return grid[:, list(word.streams)].reshape(-1)

    def _of_blocks(self, symbols: Tensor, word: Codeword) -> Tensor:
        """Return a codeword's blocks, [C, L], out of all symbols [K]."""
        grid = (word.cut.blocks, word.cut.symbols_per_block)
        return self._of_word(symbols, word)[: math.prod(grid)].view(grid)

    def _modulate(self, item: int, plan: Plan, generator: torch.Generator) -> Tensor:
        """Return [K]: coded blocks, then padding; random symbols where bits do not matter."""
        words = plan.offer.words
        symbols = _noise_like(words[0], self.total, generator)
        grid = symbols[: self.uses * self.hop.num_streams].view(self.uses, -1)
        for word in words[1:]:
            drawn = _noise_like(word, self.uses * len(word.streams), generator)
            grid[:, list(word.streams)] = drawn.view(self.uses, -1)
        if self.round == 0:
            scrambling = torch.randint(2, (plan.offer.payload,), generator=generator)
            self.scrambling.append(scrambling.numpy().astype(np.uint8))
        if self.transmitter.engine == "ldpc" and plan.coded is not None:
            message = self.transmitter.stills.pack(plan.coded, plan.image)
            bits = np.unpackbits(np.frombuffer(message, np.uint8))
            bits = np.pad(bits, (0, plan.offer.payload - len(bits))) ^ self.scrambling[item]
            for word, part in zip(words, _shares(bits, words), strict=True):
                blocks = torch.from_numpy(part).float().view(word.cut.blocks, -1)
                coded = ldpc_modulate(blocks, word.cut, self.versions[self.round]).reshape(-1)
                carried = self._of_word(symbols, word)
                carried[: len(coded)] = coded
                grid[:, list(word.streams)] = carried.view(self.uses, -1)
        return symbols

    def _look_up(self, item: int, plan: Plan, y: Tensor, n0: Tensor) -> bytes | None:
        """Return the message if the draw from its blocks' error rates at this noise says so."""
        sent, odds = self.symbols[item, 0], 1.0
        for word, soft in zip(plan.offer.words, self.memory[item], strict=True):
            y_word, x_word, n0_word = (self._of_blocks(line, word) for line in (y, sent, n0))
            llr = qam_signed_llr(y_word, n0_word, x_word, word.cut.mcs.bits_per_symbol)
            soft.add(llr, self.versions[self.round])
            odds *= float(arrived(soft, word.cut).prod())
        if plan.coded is None or self.luck[item] >= odds:
            return None
        return self.transmitter.stills.pack(plan.coded, plan.image)

    def _decode(self, item: int, plan: Plan, y: Tensor, n0: Tensor) -> bytes | None:
        """Return the message if all blocks of all codewords can be decoded; zeros follow it."""
        if plan.coded is None:
            return None
        parts, complete = [], True
        for word, soft in zip(plan.offer.words, self.memory[item], strict=True):
            y_word, n0_word = (self._of_blocks(line, word) for line in (y, n0))
            llr = qam_llr(y_word, n0_word, word.cut.mcs.bits_per_symbol)
            soft.add(llr, self.versions[self.round])
            payload, good = soft.decode()
            complete &= bool(good.all())
            parts.append(payload.reshape(-1).numpy().astype(np.uint8))
        if not complete:
            return None
        return np.packbits(np.concatenate(parts) ^ self.scrambling[item]).tobytes()


def _noise_like(word: Codeword, count: int, generator: torch.Generator) -> Tensor:
    """Return random points of a codeword's modulation."""
    points = qam_points(word.cut.mcs.bits_per_symbol)
    return points[torch.randint(len(points), (count,), generator=generator)]


def _of_items(csi: CSI, items: list[int]) -> CSI:
    """Return the CSI of some items of a batch."""
    h = None if csi.h is None else csi.h[items]
    covariance = None if csi.covariance is None else csi.covariance[items]
    return CSI(h, csi.n0[items], covariance=covariance)


def _shares(bits: np.ndarray, words: Sequence[Codeword]) -> list[np.ndarray]:
    """Cut the bits of a message into what each codeword carries."""
    edges = np.cumsum([word.cut.payload for word in words])
    return np.split(bits, edges[:-1])
