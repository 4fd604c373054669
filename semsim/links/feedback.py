"""Feedback: symbols in rounds, each of which sends what the receiver still has wrong.

    round 1   s ─► hop ─► estimate
    round r   s - estimate, brought to unit power ─► hop ─► a better estimate     ─► receiver
              ▲                                                     │
              └──────────── fed back, without or with noise ◄───────┘

Source: Elias, Channel capacity without coding (1956); Schalkwijk, Kailath, A coding scheme for
additive noise channels with feedback (1966).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from channels.base import CSI, Channel
from channels.checks import check_range
from channels.csi import CSISource
from channels.streams import forks, normal_by_use
from semsim.hop import Air, Arrival
from semsim.link import Link, check_ends
from semsim.links.codecs import check_open, check_separated
from semsim.phy.frontend import FrontEnd
from semsim.phy.power import unit_power
from semsim.types import Ledger, Receiver, Transmitter

SCALE_BITS = 32  #: of an item's factor to unit power, told in each later round


@dataclass(frozen=True)
class Rounds(Air):
    """One draw of all rounds; its own fields are those of the first."""

    later: tuple[Air, ...]
    back: torch.Generator


class FeedbackLink(Link):
    """Send a codec's symbols in rounds, with the receiver's estimate fed back between them.

    Each round takes the channel uses of the symbols and meets the channel anew, or as it has moved
    on by ``round_s``, if that is given. The receiver weighs what arrives as a Kalman filter does.
    Over AWGN of SNR g without noise on the way back, R rounds have the SNR (1 + g)^R - 1; R
    repetitions would have R g. Feedback without noise is free, an upper bound as perfect CSI is;
    with noise it takes one use per symbol, however many streams go forth. Each round after the
    first tells the receiver a scale of 32 bits, which is charged. The transmitter encodes once,
    before the first round: of later rounds it foresees what it knows of the first where ``round_s``
    is given, else the average SNR.

    Args:
        transmitter, channel, receiver, csi_rx, csi_tx, frontend: as in :class:`Link`. Not a codec
            with a link of its own: for separate write its harq.
        rounds: 1 or more; 1 is a link without feedback.
        feedback_snr_db: SNR of the way back, in dB, of estimates of unit power; .inf has no noise.
        round_s: time from one round to the next, in s, by which the same realisation of the channel
            is later, as its own speed says; None draws another for each round.
    """

    def __init__(
        self,
        transmitter: Transmitter,
        channel: Channel,
        receiver: Receiver | None = None,
        *,
        csi_rx: CSISource | None = None,
        csi_tx: CSISource | None = None,
        frontend: FrontEnd | None = None,
        rounds: int = 2,
        feedback_snr_db: float = float("inf"),
        round_s: float | None = None,
    ) -> None:
        check_ends(transmitter, receiver)
        check_open("feedback", transmitter, "use an open codec; separate has harq of its own")
        if rounds < 1:
            raise ValueError(f"rounds is 1 or more, got {rounds}")
        if not feedback_snr_db > -200:
            raise ValueError(f"feedback_snr_db is above -200 dB, or .inf, got {feedback_snr_db}")
        if round_s is not None:
            check_range("round_s", round_s, low=0.0, high=math.inf, hint="a slot of 5G has 0.5e-3")
        ends = {"csi_rx": csi_rx, "csi_tx": csi_tx, "frontend": frontend}
        super().__init__(transmitter, channel, receiver, **ends)  # type: ignore[arg-type]
        self.rounds, self.feedback_snr_db, self.round_s = rounds, feedback_snr_db, round_s

    def draw(self, num_symbols: int, n0: Tensor, generator: torch.Generator) -> Rounds:
        """Draw every round, the first as a link without feedback would."""
        first = super().draw(num_symbols, n0, generator)
        names = [f"round {r}" for r in range(2, self.rounds + 1)]
        back, *others = forks(generator, "feedback", *names)
        if self.round_s is None:
            later = [super(FeedbackLink, self).draw(num_symbols, n0, own) for own in others]
        else:
            times = (self.round_s * number for number in range(1, self.rounds))
            later = [
                self.again(first, own, later_s=time_s)
                for own, time_s in zip(others, times, strict=True)
            ]
        return Rounds(**vars(first), later=tuple(later), back=back)

    def carry(self, symbols: Tensor, air: Air) -> Arrival:
        """Send symbols [B, 1, K] in all rounds; return them with the noise left."""
        assert isinstance(air, Rounds)
        back_n0 = 10 ** (-self.feedback_snr_db / 10)
        first = super().carry(symbols, air)
        check_separated("feedback", first.csi)
        left, kept = _shares(first.csi.n0)
        estimate, sent = kept * first.received, [first.x]
        for own in air.later:
            noise = normal_by_use(symbols.shape[:2], symbols.shape[2], air.back, symbols.dtype)
            error = symbols - estimate - back_n0**0.5 * noise
            power = error.abs().square().mean(dim=2, keepdim=True)
            there = super().carry(unit_power(error), own)
            gain, left, kept = _update(left, kept, power * there.csi.n0, back_n0)
            estimate = estimate + gain * power.sqrt() * there.received
            sent.append(there.x)
        return Arrival(torch.cat(sent, dim=2), estimate / kept, CSI(None, left / kept))

    def foreseen(self, air: Air) -> CSI:
        """Return the noise that all rounds will leave, as far as the transmitter knows."""
        assert isinstance(air, Rounds)
        back_n0, n0 = 10 ** (-self.feedback_snr_db / 10), super().foreseen(air).n0
        left, kept = _shares(n0)
        if self.round_s is None:  # fading of later rounds is not there yet
            average = air.n0 + air.state.interference
            n0 = average.view(-1, *[1] * (n0.dim() - 1))
        for _ in air.later:
            _, left, kept = _update(left, kept, (left + back_n0) * n0, back_n0)
        return CSI(None, left / kept)

    def ledger(self, air: Air, side_info_bits: float = 0.0) -> Ledger:
        """Itemise the channel uses of all rounds, and of estimates on a noisy way back."""
        assert isinstance(air, Rounds)
        total = super().ledger(air, side_info_bits)
        noisy = self.feedback_snr_db != float("inf")
        for own in air.later:
            more = super().ledger(own, SCALE_BITS)
            total = replace(
                total,
                payload=total.payload + more.payload,
                pilots=total.pilots + more.pilots,
                feedback=total.feedback + more.feedback + noisy * own.uses * self.num_streams,
                side_info=total.side_info + more.side_info,
            )
        return total


def _shares(n0: Tensor) -> tuple[Tensor, Tensor]:
    """Return the variance of an LMMSE estimate's error, and of the estimate: their sum is 1.

    Both, for of a stream that was given up single precision takes the first for 1.
    """
    kept = 1 / (1 + n0)
    return n0 * kept, kept


def _update(
    left: Tensor, kept: Tensor, noise: Tensor, back_n0: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the Kalman gain of a round, and the variances that it leaves, as :func:`_shares`.

    Args:
        left: variance of the error before.
        kept: of the estimate before, 1 - left.
        noise: of what arrives, in units of the error that was sent.
        back_n0: of the estimate that came back.
    """
    beside = noise + back_n0
    gain = left / (left + beside).clamp_min(1e-30)
    return gain, gain * beside, kept + gain * left
