"""Hybrid ARQ: what is sent again, how it is combined, and what can be expected of it.

    round 1 ─► decoded? ─► ack: done, and no further channel use
                  └─ nack ─► round 2: the same bits (chase), or further ones (incremental
                             redundancy) ─► decode the sum of both ─► ...

All blocks of a message go again until the last of them is decoded. Chase combining adds SNR,
incremental redundancy adds information.

Source: Caire, Tuninetti, The throughput of hybrid-ARQ protocols for the Gaussian collision channel
    (2001); 3GPP TS 38.212, section 5.4.2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from semsim.codecs.outage import arrival
from semsim.phy.bler import code_error_rate
from semsim.phy.circular_buffer import VERSIONS, read_places
from semsim.phy.ldpc import Segmentation
from semsim.phy.qam import qam_information

Combining = Literal["none", "chase", "ir"]
RoundFading = Literal["new", "same"]


@dataclass(frozen=True)
class Harq:
    """How often, and what, a transmitter sends again.

    Args:
        combining: "chase" sends the same bits again, "ir" the standard's redundancy versions.
        rounds: transmissions at most.
        fading: each round meets "new" fading, or the "same".
        share: channel uses of one round over those of the budget.
    """

    combining: Combining
    rounds: int
    fading: RoundFading
    share: Fraction

    @property
    def versions(self) -> tuple[int, ...]:
        """Redundancy version of each round."""
        if self.combining == "ir":
            return tuple(VERSIONS[number % 4] for number in range(self.rounds))
        return (0,) * self.rounds

    def arrival(self, snr_db: Tensor, cut: Segmentation) -> Tensor:
        """Return the probability that every block has arrived after each round, [rounds, ...].

        Args:
            snr_db: of each block in each round, [rounds, ..., blocks], dB; a single column stands
                for all blocks.
            cut: how the message was cut, into at least one block.
        """
        if self.combining != "ir":
            return arrival(10 * torch.log10((10 ** (snr_db / 10)).cumsum(dim=0)), cut)
        return torch.stack(
            [self._with_all_of(snr_db[: last + 1], cut) for last in range(len(snr_db))]
        )

    def _with_all_of(self, snr_db: Tensor, cut: Segmentation) -> Tensor:
        """Return the probability that every block arrives by these rounds together."""
        bits, snr = cut.mcs.bits_per_symbol, 10 ** (snr_db / 10)
        patterns, counts = _heard(cut, self.versions[: len(snr_db)])
        carried = torch.zeros_like(snr[0])
        for pattern, count in zip(patterns, counts, strict=True):
            together = 10 * torch.log10(snr[pattern].sum(dim=0))
            carried = carried + qam_information(together, bits) / bits * count
        places = int(counts.sum())
        certain = torch.ones_like(carried)
        loss = code_error_rate(
            carried / places, certain, cut.mcs.index, cut.info, places, realised=False
        )
        return (1 - loss).prod(dim=-1) ** (cut.blocks // snr_db.shape[-1])


def _heard(cut: Segmentation, versions: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return by which rounds places of the buffer were heard, [patterns, rounds], and how many."""
    places = [read_places(cut.info, cut.graph, version, cut.coded) for version in versions]
    hit = torch.zeros(int(torch.cat(places).max()) + 1, len(versions), dtype=torch.bool)
    for number, heard in enumerate(places):
        hit[heard, number] = True
    patterns, counts = hit[hit.any(dim=1)].unique(dim=0, return_counts=True)
    return patterns, counts
