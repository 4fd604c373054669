"""Which limit bounds a link: what its transmitter can know decides, and what is drawn says how far.

    per_draw  the transmitter knows each draw of the channel and sends what it carries
    one       it knows the statistics and takes one rate for all draws, the best on average
    ergodic   the mean over the fading, for one code over very many draws

The receiver knows the channel perfectly in all three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from channels.base import Channel, ChannelState
from channels.blocks import varies
from semsim.phy.blocklength import Code, arrival
from semsim.phy.information import Information, blind, covariance_roots, informed, seen_through
from semsim.seeds import stream

NAMES: dict[str, str] = {
    "per_draw": "capacity per draw (known at the transmitter)",
    "one": "one rate for all draws (outage-optimal)",
    "ergodic": "ergodic capacity",
    "constant": "capacity (the same in every draw)",
}
_GAINS = 1 << 21  # of all draws together
_DRAWS = (128, 16384)  # at least, at most
_AT_ONCE = 1 << 20  # gains
_LEVELS = 64  # rates tried for all draws
_SAME, _CLOSE = 1e-3, 0.03  # spread over mean of what items carry


@dataclass(frozen=True)
class Offer:
    """One size of message.

    Args:
        bits: that fit.
        odds: probability that they arrive, as far as the transmitter knows.
        way: which covariance is sent.
    """

    bits: float
    odds: float
    way: int = 0


class Limits:
    """What items of one length carry over a channel, from draws of a fixed seed.

    Args:
        channel: the link's.
        uses: channel uses of an item.
        code: None for codewords of any length, or whose normal approximation.
        device: where to draw.
    """

    def __init__(
        self, channel: Channel, uses: int, code: Code | None, device: torch.device
    ) -> None:
        self.uses, self.code = uses, code
        self._states = _draws(channel, uses, device)
        self._known: dict[float, tuple[list[Tensor], list[Information], list[Offer]]] = {}

    def natural(self) -> str:
        """Return the limit for a transmitter that knows the statistics alone, at 0 dB."""
        bits = self._prospect(1.0)[1][0].bits
        spread = float(bits.std() / bits.mean().clamp_min(1e-30))
        if spread < _SAME:
            return "constant"
        return "ergodic" if spread < _CLOSE and self.code is None else "one"

    def of_draws(self, state: ChannelState, n0: Tensor) -> list[list[Offer]]:
        """Return the offers for each item, whose draw the transmitter knows."""
        carried = informed(seen_through(state, n0), self.uses, self.code or "shell")
        return [
            _offers([Information(bits[None], variance[None])], self.uses, self.code)
            for bits, variance in zip(carried.bits, carried.variance, strict=True)
        ]

    def of_statistics(self, n0: float) -> list[Offer]:
        """Return the offers for all items alike, by their odds over the draws."""
        return self._prospect(n0)[2]

    def ergodic(self, n0: float) -> Offer:
        """Return what draws carry on average, with the best covariance."""
        means = [float(carried.bits.mean()) for carried in self._prospect(n0)[1]]
        return Offer(max(means), 1.0, means.index(max(means)))

    def arrive(self, offers: Sequence[Offer], state: ChannelState, n0: Tensor) -> Tensor:
        """Return the probability that each item's offer of :meth:`of_statistics` arrives, [B]."""
        seen, odds = seen_through(state, n0), []
        for item, offer in enumerate(offers):
            root = self._prospect(float(n0[item]))[0][offer.way]
            carried = blind(seen[item : item + 1], root, self.uses, self.code or "shell")
            odds.append(_odds(offer.bits, carried, self.uses, self.code))
        return torch.cat(odds)

    def _prospect(self, n0: float) -> tuple[list[Tensor], list[Information], list[Offer]]:
        if n0 not in self._known:
            noise = [torch.full((len(s.h),), n0, device=s.h.device) for s in self._states]
            seen = [seen_through(s, n) for s, n in zip(self._states, noise, strict=True)]
            roots = covariance_roots(seen[0])
            carried = [self._over_draws(seen, root) for root in roots]
            self._known[n0] = roots, carried, _offers(carried, self.uses, self.code)
        return self._known[n0]

    def _over_draws(self, seen: Sequence[Tensor], root: Tensor) -> Information:
        parts = [blind(part, root, self.uses, self.code or "shell") for part in seen]
        return Information(
            torch.cat([part.bits for part in parts]), torch.cat([part.variance for part in parts])
        )


def _draws(channel: Channel, uses: int, device: torch.device) -> list[ChannelState]:
    """Return many draws of a channel, a few at a time."""
    generator = stream(0, "limits", uses, device=device)
    if not varies(channel.draw(1, uses, generator)):
        uses = 1  # the same for all uses
    size = uses * channel.num_tx * channel.num_rx
    count = min(max(_GAINS // size, _DRAWS[0]), _DRAWS[1])
    few = min(max(_AT_ONCE // size, 1), count)
    return [
        channel.draw(min(few, count - start), uses, generator) for start in range(0, count, few)
    ]


def _offers(ways: Sequence[Information], uses: int, code: Code | None) -> list[Offer]:
    """Return sizes of message from safe to daring, each with the best way to send it."""
    sizes = torch.cat([_sizes(way, code) for way in ways])
    if len(sizes) > _LEVELS:
        levels = torch.linspace(0, 0.98, _LEVELS, dtype=sizes.dtype, device=sizes.device)
        sizes = sizes.sort().values[(levels * (len(sizes) - 1)).long()]
    offers = []
    for bits in sizes.clamp_min(0).unique().tolist():
        odds = [float(_odds(bits, way, uses, code).mean()) for way in ways]
        offers.append(Offer(bits, max(odds), odds.index(max(odds))))
    return offers


def _sizes(way: Information, code: Code | None) -> Tensor:
    """Return sizes of message worth trying: what draws carry, less margins for a finite code."""
    if code is None:
        return way.bits
    margins = torch.linspace(-1, 5, 25, dtype=way.bits.dtype, device=way.bits.device)
    return (way.bits[:, None] - margins * way.variance.sqrt()[:, None]).flatten()


def _odds(bits: float, carried: Information, uses: int, code: Code | None) -> Tensor:
    if code is None:
        return (carried.bits >= bits * (1 - 1e-9)).double()
    return arrival(bits, carried.bits, carried.variance, uses)
