"""Metrics of bits and of symbols."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from channels.base import ChannelState
from channels.units import linear_to_db
from semsim.metrics.base import Metric, Outcome
from semsim.types import Transmission, turns_of


class BER(Metric):
    """Bit error rate: share of wrong bits."""

    name, label = "ber", "Bit error rate"
    judges, scale = "link", "log"
    better = "lower"
    worst = 0.5

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the share of wrong bits of each item, [B]."""
        return wrong_bits(outcome, self.name).float().mean(dim=1)


class BLER(Metric):
    """Block error rate: share of items with at least one wrong bit, or not decoded.

    Where the receiver notes per item whether it ``decoded``, that counts; else the bits do.
    """

    name, label = "bler", "Block error rate"
    judges, scale = "link", "log"
    better = "lower"
    worst = 1.0

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return 1 for each wrong item, else 0, [B]."""
        sent = outcome.transmission
        if sent is not None and "decoded" in sent.notes:
            return 1 - sent.notes["decoded"].float()
        return wrong_bits(outcome, self.name).any(dim=1).float()


class Outage(Metric):
    """Share of items that did not arrive at all, by what the link notes as decoded."""

    name, judges = "outage", "link"
    better = "lower"
    worst = 1.0

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return 1 for each item that was lost, else 0, [B]."""
        return 1 - _note(outcome, "decoded", self.name).float()


class Throughput(Metric):
    """Bits that arrived per channel use, pilots and retransmissions included.

    Bits count without CRC, and only where the whole item was decoded. The report is the ratio of
    what arrived to what was spent over all items, as in renewal theory.

    Source: Caire, Tuninetti, The throughput of hybrid-ARQ protocols for the Gaussian collision
        channel (2001).
    """

    name, unit, judges = "throughput", "bit/use", "link"
    worst = 0.0
    per_use = True

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the bits of each item that arrived, [B]."""
        if not _transmission(outcome, self.name).ledger.total:
            raise ValueError("throughput is per channel use, and this link takes none")
        return _note(outcome, "bits", self.name) * _note(outcome, "decoded", self.name)


class EVM(Metric):
    """Error vector magnitude in percent: RMS of (received - sent) over RMS of sent.

    In AWGN this is 100 / sqrt(SNR): 10 % at 20 dB.
    """

    name, unit, judges = "evm", "%", "link"
    better = "lower"

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return error power over signal power of each item, linear, [B]."""
        sent = _transmission(outcome, self.name)
        if sent.symbols is None or sent.received is None:
            raise ValueError("evm needs a link that keeps symbols and received; this one does not")
        if sent.symbols.shape != sent.received.shape:
            raise ValueError(
                f"evm compares symbols {list(sent.symbols.shape)} with as many received, got "
                f"{list(sent.received.shape)}; use a front end such as lmmse instead of none"
            )
        error = (sent.received - sent.symbols).abs().square().flatten(1).mean(dim=1)
        return error / sent.symbols.abs().square().flatten(1).mean(dim=1)

    def combine(self, mean: float) -> float:
        """Return the RMS error in percent for a mean power ratio."""
        return 100 * math.sqrt(max(mean, 0.0))


class PAPR(Metric):
    """Peak over mean power of what enters the channel, in dB, at the antenna that has most.

    Over OFDM that is the signal in time, four times oversampled and with its prefixes. A relay's
    antennas, and each round of hybrid ARQ, count for themselves.
    """

    name, unit, judges = "papr", "dB", "link"
    better = "lower"

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the PAPR of each item in dB, [B]."""
        sent = _transmission(outcome, self.name)
        turns = turns_of(sent)
        pieces = sent.x.split([turn.uses for turn in turns], dim=2)
        ratios = [_peak_over_mean(x, t.state) for x, t in zip(pieces, turns, strict=True)]
        return linear_to_db(torch.cat(ratios, dim=1).amax(dim=1).clamp(min=1))


def _peak_over_mean(x: Tensor, state: ChannelState | None) -> Tensor:
    """Return the ratio at each antenna, linear, [B, T]; 0 at a silent one."""
    waveform = None if state is None else state.waveform
    power = (x if waveform is None else waveform(x)).abs().square()  # [B, T, N]
    mean = power.mean(dim=2)
    return power.amax(dim=2) / mean.clamp(min=torch.finfo(mean.dtype).tiny)


def wrong_bits(outcome: Outcome, name: str) -> Tensor:
    """Return which bits are wrong, bool [B, K]; ValueError where source or output are no bits."""
    source, output = outcome.source, outcome.output
    if source.dim() != 2 or not bool(((source == 0) | (source == 1)).all()):
        raise ValueError(
            f"{name} needs a payload of bits, {{kind: bits}}, and a receiver that outputs bits; "
            f"this payload's items are {list(source.shape[1:])}. For images use psnr"
        )
    if output.shape != source.shape:
        raise ValueError(
            f"{name} needs a receiver that outputs the {source.shape[1]} bits sent per item, got "
            f"{list(output.shape[1:])}"
        )
    return (output > 0.5) != (source > 0.5)


def _transmission(outcome: Outcome, name: str) -> Transmission:
    if outcome.transmission is None:
        raise ValueError(f"{name} is measured on the link; give Outcome(..., transmission=...)")
    return outcome.transmission


def _note(outcome: Outcome, note: str, metric: str) -> Tensor:
    """Return what the link notes per item, [B]."""
    notes = _transmission(outcome, metric).notes
    if note not in notes:
        raise ValueError(
            f"{metric} needs a link that notes {note!r} of each item, as separate does; this one "
            f"notes {', '.join(notes) or 'nothing'}"
        )
    return notes[note]
